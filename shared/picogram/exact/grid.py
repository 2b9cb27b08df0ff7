# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of integers laid out on a padded image grid, so that a 3x3 convolution is a gather and a matrix product.

Values are stored position by position, ``[B * (h + 2) * (w + 2), C] float64``, with a border of zeros. Positions are
numbered by row within that array, so any subset of them, in any order and in pieces of any size, gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 8192
"""Positions that are gathered at once; bounds memory on large pictures."""


class Grid:
    """The geometry of a batch of ``batch`` images of ``height`` x ``width`` positions."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        self.batch, self.height, self.width = batch, height, width
        self.stride = width + 2
        image = torch.arange(batch)[:, None, None] * ((height + 2) * self.stride)
        rows = (torch.arange(height)[None, :, None] + 1) * self.stride
        cols = torch.arange(width)[None, None, :] + 1
        self.inside = (image + rows + cols).flatten()
        white = (torch.arange(height)[:, None] + torch.arange(width)[None, :]) % 2 == 0
        white = white.flatten().repeat(batch)
        self.colours = (self.inside[white], self.inside[~white])
        self.colour_order = (white.nonzero().flatten(), (~white).nonzero().flatten())
        offsets = [r * self.stride + c for r in (-1, 0, 1) for c in (-1, 0, 1)]
        self.offsets = torch.tensor(offsets)

    def zeros(self, channels: int) -> Tensor:
        """A field of zeros, border included."""
        cells = self.batch * (self.height + 2) * self.stride
        return torch.zeros(cells, channels, dtype=torch.float64)

    def field(self, rows: Tensor) -> Tensor:
        """Pad ``[B*h*w, C]`` with its border."""
        out = self.zeros(rows.shape[1])
        out[self.inside] = rows
        return out

    def convolve(self, field: Tensor, positions: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """3x3 convolution of ``field`` at ``positions``: ``layer`` gets ``[N, 9*C]``, neighbours row by row."""
        pieces = []
        for part in positions.split(CHUNK):
            neighbours = part[:, None] + self.offsets
            pieces.append(layer(field[neighbours.flatten()].reshape(len(part), 9 * field.shape[1])))
        return torch.cat(pieces) if len(pieces) != 1 else pieces[0]


def in_chunks(rows: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a row-wise layer in pieces of bounded size."""
    pieces = [layer(part) for part in rows.split(CHUNK)]
    return torch.cat(pieces) if len(pieces) != 1 else pieces[0]


def depth_to_space(rows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Depth to space by two: ``[B*h*w, 4C]`` (channel-major, as PyTorch's pixel shuffle) to ``[B*2h*2w, C]``."""
    channels = rows.shape[1] // 4
    blocks = rows.reshape(batch, height, width, channels, 2, 2)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(batch * 4 * height * width, channels)
