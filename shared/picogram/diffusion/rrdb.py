# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Real-ESRGAN's enlarging network as a trunk (Wang et al., ICCVW 2021; blocks: ESRGAN, ECCVW 2018).

    picture / 4 ── first ── + joined ──┬── blocks ── body ── + ── features at stride 4
                                       └─────────────────────┘
    features ── nearest x2, up1 ── nearest x2, up2 ── hr ── last ── picture

A block is three dense blocks of five convolutions; each adds a fifth of what it found. What a decoder knows beside the
small picture joins before the blocks, and a scale and a shift for each block say at which rate and time it works.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 0.2
"""Of what a block or a dense block adds."""
SLOPE = 0.2
LAYERS = 5
"""Convolutions of a dense block."""
DENSE = 3
"""Dense blocks of a block."""


class DenseBlock(nn.Module):
    """``x + SCALE * conv5(x, h1..h4)``, each ``h`` seeing all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * (LAYERS - 1) + [width]
        self.convs = nn.ModuleList(
            nn.Conv2d(width + i * growth, out, 3, padding=1) for i, out in enumerate(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for conv in self.convs[:-1]:
            found = torch.cat((found, F.leaky_relu(conv(found), SLOPE, inplace=True)), 1)
        out: Tensor = x + SCALE * self.convs[-1](found)
        return out


class Block(nn.Module):
    """``x + SCALE * dense3(dense2(dense1(film(x))))``."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(DenseBlock(width, growth) for _ in range(DENSE))

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """``x [B, C, h, w]``; ``scale, shift [B, C, 1, 1]``, 0 for none."""
        found = torch.addcmul(x + shift, x, scale)
        for dense in self.dense:
            found = dense(found)
        return x + SCALE * found


class RRDBTrunk(nn.Module):
    """Real-ESRGAN's network, ``blocks`` deep (the published one has 23): ``[B, 3, h, w]`` 0..1 to four times the size."""

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()

        def conv(inside: int, out: int) -> nn.Conv2d:
            return nn.Conv2d(inside, out, 3, padding=1)

        self.first = conv(3, width)
        self.blocks = nn.ModuleList(Block(width, growth) for _ in range(blocks))
        self.body, self.up1, self.up2, self.hr = (conv(width, width) for _ in range(4))
        self.last = conv(width, 3)

    def features(self, low: Tensor, joined: Tensor, films: Tensor) -> Tensor:
        """``[B, C, h, w]`` of a small picture ``low [B, 3, h, w]`` 0..1.

        ``joined [B, C, h, w]``: added before the blocks; ``films [B, blocks, 2, C]``: their scales and shifts.
        """
        start = found = self.first(low) + joined
        for index, block in enumerate(self.blocks):
            scale, shift = films[:, index, :, :, None, None].unbind(1)
            found = block(found, scale, shift)
        out: Tensor = start + self.body(found)
        return out

    def picture(self, features: Tensor) -> Tensor:
        """Features to ``[B, 3, 4h, 4w]``, not clamped."""
        found = features
        for conv in (self.up1, self.up2):
            found = F.interpolate(found, scale_factor=2, mode="nearest")
            found = F.leaky_relu(conv(found), SLOPE, inplace=True)
        out: Tensor = self.last(F.leaky_relu(self.hr(found), SLOPE, inplace=True))
        return out
