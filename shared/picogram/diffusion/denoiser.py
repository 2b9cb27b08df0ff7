# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the sampler asks of a network: the embedded one and those of the hub look the same to it.

    Denoiser ── read(prompts) ──> Texts
             └─ begin(batch) ──> StageProcess ── start, then for each step: predict, step ── finish ──> pictures

A process works on ``x``: pictures, or latents of which ``cell`` pixels a side make one position. Steps are counted from
0; index ``count`` is the end, where nothing is noisy any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from picogram.diffusion.stages import AttentionMode, Stage

AttentionGuide = Callable[[Tensor], Tensor]
"""Sees or changes cross-attention logits ``[B, heads, h, w, T]`` before the softmax, layer by layer. Tokens that are no
tokens have minus infinity."""


@dataclass(frozen=True)
class Window:
    """A part of ``x``, in positions."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: Tensor, cell: int = 1) -> Tensor:
        """The part of ``x [..., H, W]``, which has ``cell`` times as many positions a side."""
        rows = slice(self.top * cell, (self.top + self.height) * cell)
        return x[..., rows, self.left * cell : (self.left + self.width) * cell]


@dataclass(frozen=True)
class BasePicture:
    """What a decoder has before anything is imagined: ``pixels [3, H, W]`` 0..1, ``latent [C, h, w]`` with gains undone
    and ``rate`` 0..1 (networks that only see pictures ignore these two). Tensors may lie on any device."""

    pixels: Tensor
    latent: Tensor
    rate: float


@dataclass(frozen=True)
class Restoration:
    """One picture to be restored: what it starts from, and the stages in order; none leave it as it is."""

    base: BasePicture
    stages: Sequence[Stage]


@dataclass(frozen=True)
class Batch:
    """One stage of pictures of one size: ``control`` (to be true to) and ``previous`` (to go on from) are
    ``[B, 3, H, W]`` 0..1, with sides that are multiples of the denoiser's ``align``."""

    bases: Sequence[BasePicture]
    control: Tensor
    previous: Tensor
    stages: Sequence[Stage]


class Texts(Protocol):
    """Encoded prompts of a batch."""

    @property
    def words(self) -> Tensor:
        """``[B, T] bool``: the tokens that stand for words of the prompt, not for its start, end or padding."""


class StageProcess(Protocol):
    """One stage of one batch: its noise, its times and where it is between them. Good for one run."""

    count: int
    """Steps."""

    def start(self) -> Tensor:
        """``x`` at step 0."""

    def noisy(self, index: int) -> Tensor:
        """The previous pictures as ``x`` would be at that step: what masked stages keep."""

    def deviation(self, index: int) -> float:
        """Of the noise in ``x`` at that step, relative to the picture in it."""

    def predict(
        self, x: Tensor, index: int, texts: Texts, window: Window, guide: AttentionGuide | None = None
    ) -> Tensor:
        """The network's output for ``window`` of the pictures, of which ``x`` is cut out already."""

    def step(self, output: Tensor, x: Tensor, index: int) -> Tensor:
        """``x`` at step ``index + 1``. Called once for each index, in order."""

    def finish(self, x: Tensor) -> Tensor:
        """The pictures ``[B, 3, H, W]``."""


class Denoiser(Protocol):
    """A network with its words and its noise. Not thread-safe unless it says so."""

    cell: int
    """Pixels a side of one position of ``x``."""
    align: int
    """Picture sides must be multiples of this many pixels."""
    tile: int
    """Larger pictures are done in windows of this many pixels a side."""
    reach: int | None
    """Pixels from which on what lies around a place hardly matters there; None: the whole picture always does."""
    batch_pixels: int
    """Pixels of the pictures that share a pass, at most; a larger picture has passes of its own."""
    kind: str
    """Which of a profile's tables of stages suits it: ``embedded``, ``one-step`` or ``many-step``."""
    attention: AttentionMode
    """How attention guidance acts where a stage does not say."""

    @property
    def device(self) -> torch.device:
        """Where ``x`` lives."""

    def read(self, prompts: Sequence[str]) -> Texts:
        """Encode prompts, any text of any length."""

    def begin(self, batch: Batch) -> StageProcess:
        """A fresh process; draws noise from a CPU generator for each picture, seeded by its stage."""
