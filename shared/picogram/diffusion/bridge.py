# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The path from base picture to original and the steps along it (flow matching: Lipman et al., ICLR 2023; from a
degraded picture instead of from pure noise: Delbracio and Milanfar, InDI, TMLR 2023).

    x_t = (1 - t) (base + NOISE noise) + t original,    t from 0 to 1
    x_s = x_t + (s - t) / (1 - t) (clean(x_t, t) - x_t)      one Euler step; clean is the network's prediction

In the terms of flow-matching schedulers sigma is 1 - t and the velocity (x_t - clean) / sigma. Noise comes from a CPU
generator in float32, so a seed gives the same picture in any batch and, within rounding, on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.diffusion.diffusion_net import ALIGN
from picogram.diffusion.stages import MAX_STEPS
from picogram.latent.transforms import STRIDE

NOISE = 0.15
"""Deviation of the noise on the base picture at time 0, in units of the picture's 0..1."""


@dataclass(frozen=True)
class Condition:
    """What a batch of pictures is restored from: ``base [B, 3, H, W]`` 0..1 of any size, ``latent [B, C, h, w]`` with
    gains undone, ``rate [B]`` 0..1."""

    base: Tensor
    latent: Tensor
    rate: Tensor

    def aligned(self) -> Condition:
        """Padded at right and bottom by repeating edges, so that sides are multiples of ALIGN."""
        height, width = (-(-side // ALIGN) * ALIGN for side in self.base.shape[2:])
        return Condition(
            _padded(self.base, height, width),
            _padded(self.latent, height // STRIDE, width // STRIDE),
            self.rate,
        )


def draw_noise(seeds: Sequence[int], height: int, width: int) -> Tensor:
    """``[B, 3, height, width]``, unit variance: one generator a picture."""
    shape = 3, height, width
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def mix(base: Tensor, noise: Tensor, clean: Tensor, time: Tensor) -> Tensor:
    """``x_t [B, 3, H, W]`` at ``time [B]`` 0..1, of pictures ``base`` and ``clean`` and unit ``noise`` of that shape."""
    t = time[:, None, None, None]
    return (1 - t) * (base + NOISE * noise) + t * clean


def euler(x: Tensor, clean: Tensor, time: float, until: float) -> Tensor:
    """From ``time`` to ``until``; at 1 this is the prediction itself."""
    return x + (until - time) / (1 - time) * (clean - x)


def times(steps: int, start: float = 0.0) -> list[float]:
    """``steps + 1`` equally spaced times from ``start`` (0 <= start < 1) to 1. ValueError beyond 1..MAX_STEPS."""
    if not 1 <= steps <= MAX_STEPS or not 0 <= start < 1:
        raise ValueError(f"steps must be 1 to {MAX_STEPS} and the start 0 to below 1")
    return [start + (1 - start) * i / steps for i in range(steps)] + [1.0]


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """Edges repeated up to a size; a size already reached is kept."""
    down, right = max(0, height - x.shape[2]), max(0, width - x.shape[3])
    return F.pad(x, (0, right, 0, down), mode="replicate")
