# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Colours that words name, and where a picture has them; in CIELAB (D65), in which distances are about what is seen."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

COLOURS: Final = {
    "black": (10, 0, 0),
    "white": (95, 0, 0),
    "grey": (55, 0, 0),
    "gray": (55, 0, 0),
    "silver": (70, 0, 0),
    "red": (45, 62, 40),
    "maroon": (28, 38, 14),
    "orange": (66, 42, 68),
    "brown": (35, 18, 28),
    "yellow": (85, -2, 75),
    "golden": (70, 10, 60),
    "brass": (60, 8, 45),
    "green": (48, -45, 38),
    "blue": (38, 8, -48),
    "purple": (38, 40, -38),
    "pink": (75, 32, 2),
}
"""Typical L, a and b."""
_TOLERANCE: Final = 30.0
_LIGHTNESS: Final = 0.6
"""What lightness counts beside hue: things have shadows."""
_TO_XYZ: Final = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_WHITE: Final = (0.9505, 1.0, 1.089)


def lab(pixels: Tensor) -> Tensor:
    """sRGB ``[..., 3]`` 0..1 as L 0..100, a and b."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    xyz = linear @ torch.tensor(_TO_XYZ).T / torch.tensor(_WHITE)
    roots = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = roots.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_cells(picture: Image.Image, side: int) -> Tensor:
    """Mean colours ``[side, side, 3]`` of an RGB picture's cells, whatever its aspect."""
    small = picture.resize((side, side), Image.Resampling.BOX)
    return lab(torch.from_numpy(np.array(small, np.float32) / 255))


def colour_evidence(colours: Tensor, words: str) -> Tensor | None:
    """How much of the colours that words name is in each of ``colours [h, w, 3]``: ``[h, w]`` 0..1; None without any."""
    named = [
        COLOURS[word.strip(".,;:!?")] for word in words.lower().split() if word.strip(".,;:!?") in COLOURS
    ]
    if not named:
        return None
    axes = torch.tensor([_LIGHTNESS, 1.0, 1.0])
    far = [((colours - torch.tensor(each, dtype=torch.float32)) * axes).square().sum(-1) for each in named]
    return torch.stack([torch.exp(-d / (2 * _TOLERANCE**2)) for d in far]).amax(0)
