# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captioned photographs in batches, from what ``training.taco.pack`` and ``training.joint.data`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picogram.latent.guide import Guide
from picogram.semantics.joint import JointHeads
from training.taco.pack import HEIGHT, WIDTH

_AT_ONCE = 256
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CaptionedBatch:
    """``pixels [B, 3, H, W] 0..1``, ``guide`` with a caption each, and the captions' vectors ``texts [B, D]``."""

    pixels: Tensor
    guide: Guide
    texts: Tensor


class Captioned:
    """The training part, on ``device`` as all that comes from it; what is random comes from ``rng``.

    ``bank [N, D]`` holds the vector of each photo's first caption.
    """

    def __init__(
        self,
        photos: Path,
        states: Path,
        heads: JointHeads,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        """``photos``: made by ``training.taco.pack``; ``states``: by ``training.joint.data``; ``heads`` are moved."""
        about = json.loads((photos / "photos.json").read_text())
        index = json.loads((states / "index.json").read_text())
        self.device, self.rng = device, rng
        self.numbers: Numbers = np.array(about["numbers"][: about["train"]])
        self.captions, self.places = np.array(index["captions"]), np.array(index["states"])
        pixels = np.memmap(photos / "photos.u8", np.uint8, "c").reshape(-1, HEIGHT, WIDTH, 3)
        self.pixels = torch.from_numpy(pixels).to(device)
        self.states = torch.from_numpy(np.load(states / "states.npy", mmap_mode="c")).to(device)
        self.heads = heads.to(device)
        self.bank = self._bank()

    @torch.no_grad()
    def _bank(self) -> Tensor:
        firsts = self.captions[self.numbers]
        parts = [self.vectors(self.guide(firsts[i : i + _AT_ONCE])) for i in range(0, len(firsts), _AT_ONCE)]
        return torch.cat(parts)

    def guide(self, captions: Numbers) -> Guide:
        """Captions by their number in the index."""
        starts, ends = self.places[captions], self.places[captions + 1]
        steps = np.arange(int((ends - starts).max()))[None]
        real = steps < (ends - starts)[:, None]
        rows = self._moved(np.where(real, starts[:, None] + steps, 0))
        mask = self._moved(real)
        return Guide(self.states[rows].float() * mask[..., None], mask)

    def _moved(self, values: npt.NDArray[Any]) -> Tensor:
        """On the device, without waiting for it."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @torch.no_grad()
    def vectors(self, guide: Guide) -> Tensor:
        """``[B, D]`` in the joint space."""
        return self.heads.text(guide.states, guide.mask)

    def batch(self, count: int) -> CaptionedBatch:
        """Random photos, as they are or mirrored, each with any of its captions."""
        rows = self.rng.integers(len(self.numbers), size=count)
        photos = self.numbers[rows]
        guide = self.guide(self.rng.integers(self.captions[photos], self.captions[photos + 1]))
        mirrored = self._moved(self.rng.integers(0, 2, size=count).astype(bool))
        pixels = self.pixels[self._moved(rows)].permute(0, 3, 1, 2).float().div_(255)
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return CaptionedBatch(
            pixels.contiguous(memory_format=torch.channels_last), guide, self.vectors(guide)
        )

    def others(self, count: int) -> Tensor:
        """Vectors ``[count, D]`` of random captions, to tell a photo's own from."""
        return self.bank[self._moved(self.rng.integers(len(self.bank), size=count))]


def without_some(guide: Guide, keep: Tensor) -> Guide:
    """``keep [B]`` False: that row has no caption."""
    return Guide(guide.states, guide.mask & keep[:, None])
