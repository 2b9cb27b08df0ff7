# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Brightness and colour from the base picture, detail from the restored one, by wavelets.

    picture ── smoothed with holes of 1, 2, 4, 8, 16 pixels ── what is left: low
    fixed = picture - low(picture) + low(base)

The à trous wavelet of StableSR (Wang et al., IJCV 2024, "Exploiting diffusion prior for real-world image
super-resolution"), as MISC and Murai et al. use it: diffusion models shift colours, and tiles shift them differently.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS: Final = 5
_TAPS: Final = (1.0, 2.0, 1.0)


def low(picture: Tensor, levels: int = LEVELS) -> Tensor:
    """What ``[B, 3, H, W]`` looks like without detail finer than about ``2**levels`` pixels."""
    taps = torch.tensor(_TAPS, device=picture.device, dtype=picture.dtype) / sum(_TAPS)
    channels = picture.shape[1]
    for level in range(levels):
        reach = 1 << level
        for kernel, pad, hole in (
            (taps.view(1, 1, 1, 3), (reach, reach, 0, 0), (1, reach)),
            (taps.view(1, 1, 3, 1), (0, 0, reach, reach), (reach, 1)),
        ):
            padded = F.pad(picture, pad, mode="replicate")
            picture = F.conv2d(padded, kernel.expand(channels, 1, -1, -1), dilation=hole, groups=channels)
    return picture


def fix_colour(picture: Tensor, base: Tensor, levels: int = LEVELS) -> Tensor:
    """``picture [B, 3, H, W]`` with brightness and colour of ``base``."""
    return picture + low(base - picture, levels)
