# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded diffusion model with few and random weights: it changes every picture, and notes what it is told."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from picogram.diffusion.conditioning import EncodedText
from picogram.diffusion.denoiser import Batch
from picogram.diffusion.diffusion_net import DiffusionConfig, DiffusionNet
from picogram.diffusion.embedded import EmbeddedDenoiser, EmbeddedProcess

CONFIG = DiffusionConfig(
    width=8,
    growth=4,
    blocks=1,
    stem_widths=(16, 8, 8),
    stem_blocks=(1, 1, 1),
    vector=16,
    text_width=16,
    text_layers=1,
)


class TinyDenoiser(EmbeddedDenoiser):
    """``prompts`` and ``sizes`` of what it was asked for; a step takes ``pause`` seconds, and ``steps`` counts them."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        net = DiffusionNet(CONFIG).eval().requires_grad_(False)
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        super().__init__(net)
        self.__dict__["table"] = None  # as where no language model was pulled
        self.prompts: list[str] = []
        self.sizes: list[int] = []
        self.pause = 0.0
        self.steps = 0

    def read(self, prompts: Sequence[str]) -> EncodedText:
        self.prompts += prompts
        return super().read(prompts)

    def begin(self, batch: Batch) -> EmbeddedProcess:
        self.sizes.append(len(batch.stages))
        return _Pausing(self, batch)


class _Pausing(EmbeddedProcess):
    def __init__(self, denoiser: TinyDenoiser, batch: Batch) -> None:
        super().__init__(denoiser, batch)
        self._tiny = denoiser

    def step(self, output: Tensor, x: Tensor, index: int) -> Tensor:
        threading.Event().wait(self._tiny.pause)
        self._tiny.steps += 1
        return super().step(output, x, index)
