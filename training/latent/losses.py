# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Distortion of the latent codec: squared error, LPIPS and DISTS, weighted by phase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from picogram.metrics.perceptual import load_dists, load_lpips


@dataclass(frozen=True)
class LatentLossWeights:
    """Weights of each distortion term.

    The VGG terms cost three quarters of a step: they look at a window of ``vgg_crop`` pixels of a random ``vgg_share`` of
    the samples, weighted up to stay unbiased.
    """

    mse: float = 100.0  # on [0, 1]: 24 dB is 0.4
    lpips_alex: float = 1.0
    lpips_vgg: float = 0.0
    dists: float = 0.0
    vgg_crop: int = 128
    vgg_share: float = 1.0


class Distortion(nn.Module):
    """Weighted distortion per sample; the VGG backbone runs once for both of its terms."""

    def __init__(self, folder: Path, weights: LatentLossWeights) -> None:
        super().__init__()
        self.weights = weights
        uses_alex = bool(weights.lpips_alex)
        self.alex = load_lpips(folder, "alex") if uses_alex else None
        uses_vgg = weights.lpips_vgg or weights.dists
        self.vgg = load_dists(folder, also_lpips=True) if uses_vgg else None

    def forward(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``[B, 3, H, W] 0..1`` both: distortion ``[B]`` and its unweighted parts ``[B]``."""
        weights = self.weights
        parts = {"mse": (x - x_hat).square().mean((1, 2, 3))}
        if self.alex is not None:
            parts["lpips_alex"] = self.alex(x, x_hat)
        if self.vgg is not None:
            count = max(1, round(len(x) * weights.vgg_share))
            chosen = torch.randperm(len(x), device=x.device)[:count]
            a, b = _same_crop(x[chosen], x_hat[chosen], weights.vgg_crop)
            for name, part in zip(("dists", "lpips_vgg"), self.vgg.both(a, b), strict=True):
                parts[name] = torch.zeros_like(parts["mse"]).index_copy(0, chosen, part * (len(x) / count))
        total = sum((getattr(weights, name) * part for name, part in parts.items()), torch.zeros(()))
        return total, parts


def _same_crop(x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """One random window of both."""
    height, width = x.shape[2:]
    if size >= min(height, width):
        return x, y
    top = int(torch.randint(height - size + 1, ()))
    left = int(torch.randint(width - size + 1, ()))
    return tuple(v[:, :, top : top + size, left : left + size] for v in (x, y))  # type: ignore[return-value]
