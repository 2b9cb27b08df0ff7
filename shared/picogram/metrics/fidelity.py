# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""PSNR and MS-SSIM between two 8-bit RGB pictures of one size: PIL images or ``[H, W, 3] uint8`` arrays.

Both are per picture, over all three channels of RGB together, higher is better.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_msssim import ms_ssim as _ms_ssim

from picogram.errors import UsageError

Picture: TypeAlias = Image.Image | NDArray[np.uint8]

MS_SSIM_MIN_SIDE = 161  # four halvings must leave more than the 11-pixel window's 10


def as_array(picture: Picture) -> NDArray[np.uint8]:
    """``[H, W, 3] uint8``."""
    if isinstance(picture, Image.Image):
        return np.array(picture.convert("RGB"))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UsageError(f"expected an [H, W, 3] uint8 array, not {picture.shape} {picture.dtype}")
    return picture


def _pair(x: Picture, y: Picture) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    a, b = as_array(x), as_array(y)
    if a.shape != b.shape:
        raise UsageError(f"pictures of different sizes: {a.shape[:2]} and {b.shape[:2]}")
    return a, b


def psnr(x: Picture, y: Picture) -> float:
    """Peak signal-to-noise ratio in dB with a peak of 255; infinite for equal pictures."""
    a, b = _pair(x, y)
    error = float(np.square(a.astype(np.float64) - b).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ms_ssim(x: Picture, y: Picture) -> float:
    """Multi-scale SSIM in 0..1 (Wang et al. 2003), or nan where a side is under 161 pixels."""
    a, b = _pair(x, y)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return math.nan
    tensors = (torch.from_numpy(v.astype(np.float32)).permute(2, 0, 1)[None] for v in (a, b))
    with torch.inference_mode():
        return float(_ms_ssim(*tensors, data_range=255.0))
