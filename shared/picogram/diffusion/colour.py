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

import torch.nn.functional as F
from torch import Tensor

LEVELS: Final = 5


def low(picture: Tensor, levels: int = LEVELS) -> Tensor:
    """What ``[B, 3, H, W]`` looks like without detail finer than about ``2**levels`` pixels."""
    for level in range(levels):
        reach = 1 << level
        for axis, pad in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
            # shifted sums: convolutions with holes copy the picture three times over
            padded, length = F.pad(picture, pad, mode="replicate"), picture.shape[axis]
            sides = padded.narrow(axis, 0, length) + padded.narrow(axis, 2 * reach, length)
            picture = sides.add_(picture, alpha=2).mul_(0.25)
    return picture


def fix_colour(picture: Tensor, base: Tensor, levels: int = LEVELS) -> Tensor:
    """``picture [B, 3, H, W]`` with brightness and colour of ``base``."""
    return picture + low(base - picture, levels)
