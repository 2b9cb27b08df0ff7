# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Large pictures in overlapping windows whose outputs fade into one another (MultiDiffusion, Bar-Tal et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from picogram.diffusion.denoiser import Window

OVERLAP = 0.125
"""Of a window's side, at least."""


def cover(height: int, width: int, side: int, align: int = 1) -> list[Window]:
    """Windows of at most ``side`` positions, a multiple of ``align`` as are all offsets, over ``height x width``."""
    side = max(align, side // align * align)
    return [
        Window(top, left, min(side, height), min(side, width))
        for top in _offsets(height, side, align)
        for left in _offsets(width, side, align)
    ]


def around(mask: Tensor, reach: int, side: int, align: int) -> list[Window]:
    """As ``cover``, over the rectangle ``reach`` positions around where ``mask [B, 1, H, W]`` is not 0; none if empty.

    ``H`` and ``W``: multiples of ``align``."""
    inside = mask.amax((0, 1)) > 0
    if not bool(inside.any()):
        return []
    spans = []
    for axis, length in ((1, inside.shape[0]), (0, inside.shape[1])):
        places = inside.any(axis).nonzero()
        first, last = int(places.min()) - reach, int(places.max()) + 1 + reach
        spans.append((max(0, first // align * align), min(length, -(-last // align) * align)))
    (top, bottom), (left, right) = spans
    windows = cover(bottom - top, right - left, side, align)
    return [replace(w, top=w.top + top, left=w.left + left) for w in windows]


def blend(x: Tensor, windows: list[Window], each: Callable[[Window], Tensor]) -> Tensor:
    """``each(window)`` put together to the size of ``x``, which stays where no window is; where windows overlap, weights
    fall off towards their edges."""
    if len(windows) == 1 and (windows[0].height, windows[0].width) == x.shape[-2:]:
        return each(windows[0])
    total = torch.zeros_like(x, dtype=torch.float32)
    weight = torch.zeros(x.shape[-2:], device=x.device)
    for window in windows:
        fading = _fading(window, x.device)
        window.of(total).add_(each(window).float() * fading)
        window.of(weight).add_(fading)
    return torch.where(weight > 0, total / weight.clamp_min(1e-6), x.float())


def _offsets(length: int, side: int, align: int) -> list[int]:
    if length <= side:
        return [0]
    stride = max(align, int(side * (1 - OVERLAP)) // align * align)
    last = length - side
    return [*range(0, last, stride), last]


def _fading(window: Window, device: torch.device) -> Tensor:
    """``[h, w]``: 1 in the middle, falling to nearly 0 over OVERLAP of the side at every edge."""
    sides = []
    for length in (window.height, window.width):
        distance = torch.arange(length, device=device) + 0.5
        distance = torch.minimum(distance, length - distance) / max(1.0, length * OVERLAP)
        sides.append(distance.clamp(max=1))
    return reduce(torch.outer, sides)
