# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A small diffusion network with random weights, words for it, and pictures to restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.diffusion.conditioning import WordTable, WordVectors
from picogram.diffusion.denoiser import BasePicture, Restoration
from picogram.diffusion.diffusion_net import DiffusionConfig, DiffusionNet
from picogram.diffusion.embedded import EmbeddedDenoiser
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Stage

WORD_WIDTH = 12
SMALL = DiffusionConfig(
    width=8,
    growth=4,
    blocks=2,
    stem_widths=(16, 8, 8),
    stem_blocks=(1, 1, 1),
    latent_channels=4,
    vector=16,
    word_width=WORD_WIDTH,
    text_width=16,
    text_layers=1,
)


class SeeingNet(DiffusionNet):
    """Its attention depends on the noisy picture, as that of large models does; the embedded one reads the latent."""

    def forward(self, x: Tensor, base: Tensor, latent: Tensor, *more: Any) -> Tensor:
        seen = F.avg_pool2d(x, 16)
        return super().forward(x, base, latent + torch.cat((seen, seen[:, :1]), 1), *more)


def small_net(kind: type[DiffusionNet] = DiffusionNet) -> DiffusionNet:
    """Random everywhere, also where training starts at zero."""
    torch.manual_seed(1)
    made = kind(SMALL).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def small_table() -> WordTable:
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randint(-127, 128, (50, WORD_WIDTH), generator=generator).to(torch.int8)
    return WordTable({"embedding": embedding, "embedding.scale": torch.rand(50, generator=generator) + 0.5})


def small_denoiser(net: DiffusionNet, table: WordTable) -> EmbeddedDenoiser:
    """In float32, with a token for each character."""

    def words(prompts: Sequence[str]) -> WordVectors:
        return table([[ord(c) % 50 for c in prompt] for prompt in prompts])

    return EmbeddedDenoiser(net, words=words, dtype=torch.float32)


def base(number: int = 0, height: int = 64, width: int = 96) -> BasePicture:
    generator = torch.Generator().manual_seed(3 + number)
    latent = torch.randn(4, -(-height // 16), -(-width // 16), generator=generator)
    return BasePicture(torch.rand(3, height, width, generator=generator), latent, 0.3)


def drawn(denoiser: EmbeddedDenoiser, *stages: Stage, of: BasePicture | None = None) -> Tensor:
    """One picture after some stages."""
    (found,) = restore(denoiser, [Restoration(of or base(), stages)])
    assert isinstance(found, Tensor)
    return found


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().clamp(min=1e-20).log10())
