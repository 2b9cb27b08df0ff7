# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where a picture matters most, for the encoder alone: files and decoders know nothing of it.

Outside the focus the picture is softened a little, and residuals are rounded to zero sooner (a dead zone); inside, later.
The bits that this frees let the whole file have a finer rate at the same size, which is good inside. Both edges are
soft.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from picogram.ranges import weights_map

OUTSIDE: Final = 0.4
"""Dead zone outside the focus, in steps."""
INSIDE: Final = -0.1
"""Dead zone inside: below zero, residuals are kept that lie a little under one half."""
SOFTENING: Final = 1.5
"""Standard deviation in pixels of the blur outside."""
IMPORTANCE: Final = 0.3
"""Of what a decoded picture is like outside, where the encoder looks at it; inside it is 1."""

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Focus:
    """``weights [h, w]`` 0..1 over the whole picture, any sides: 1 where it matters most."""

    weights: Map

    @classmethod
    def of(cls, weights: npt.ArrayLike) -> Focus:
        """From anything like a mask or a map. Raises UsageError for what is none, or has nothing or all in focus."""
        return cls(weights_map(weights))

    def dead_zone(self, rows: int, cols: int) -> Tensor:
        """``[rows * cols] float64`` of a latent of that size, in steps."""
        weights = self._at(rows, cols)
        return (OUTSIDE + (INSIDE - OUTSIDE) * weights).flatten().double()

    def softened(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """``picture [H, W, 3]`` with its outside blurred."""
        height, width = picture.shape[:2]
        coarse = self._at(-(-height // 16), -(-width // 16))
        weights = F.interpolate(coarse[None, None], (height, width), mode="bilinear")[
            0, 0, :, :, None
        ].numpy()
        blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(SOFTENING)))
        mixed = np.rint(blurred + weights * (picture.astype(np.float32) - blurred))
        return np.asarray(mixed, np.uint8)

    def _at(self, rows: int, cols: int) -> Tensor:
        """The map ``[rows, cols]``, a position wider than it is and with soft edges."""
        weights = torch.from_numpy(self.weights)[None, None]
        if max(weights.shape[2:]) > max(rows, cols):
            weights = F.interpolate(weights, (rows, cols), mode="area")
        else:
            weights = F.interpolate(weights, (rows, cols), mode="bilinear").clamp(0, 1)
        wide = F.max_pool2d(weights, 3, 1, 1)
        return F.avg_pool2d(wide, 3, 1, 1, count_include_pad=False)[0, 0]


def importance(dead_zone: Tensor, rows: int, cols: int) -> Tensor:
    """``[1, 1, rows, cols] float32``, from IMPORTANCE to 1, of what ``Focus.dead_zone`` gave."""
    weights = (OUTSIDE - dead_zone) / (OUTSIDE - INSIDE)
    return (IMPORTANCE + (1 - IMPORTANCE) * weights).float().view(1, 1, rows, cols).clone()
