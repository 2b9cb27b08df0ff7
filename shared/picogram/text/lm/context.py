# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The decoded picture as context: five input embeddings of the language model, computed from a latent in exact integers.

    latent steps ── undo gains ── mean and mean magnitude on 8 x 8 cells ── 1x1 ── 3x3 ── 3x3 /2 ── 3x3 ── 4 x 4
                                                       whole picture and four quarters ── 5 embeddings

What the sketch already shows costs fewer bits in words. Both sides compute this from the very same latent, so the same
rules hold as for ``text/lm/model.py``: sums of integers, single IEEE operations in a fixed order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from picogram.exact.split_linear import SplitKernel, SplitLinear, best_kernel
from picogram.text.lm.model import RESIDUAL_BITS

GRID = 8
TOKENS = 5
STEP_BITS = 8
GAIN_BITS = 20
SCALE = 0.125
"""Size of the embeddings at the start of training; a power of two."""
_UNIT_LIMIT = float(1 << 40)
"""Sums over a cell of the largest picture (under 2**12 positions) stay below 2**53."""


class PictureContext:
    """The context network of one latent model."""

    def __init__(self, tensors: dict[str, Tensor], kernel: SplitKernel | None = None) -> None:
        """``tensors``: as ``training.words.export_text`` writes them."""
        chosen = kernel or best_kernel()
        self.inverse_gain = tensors["inverse_gain"].double()
        self.offset, self.factor = tensors["offset"].double(), tensors["factor"].double()
        self.place = tensors["place"].double()
        names = ("first", "mix", "down", "deep", "quarter", "whole")
        self.layers = {n: SplitLinear(tensors[n], tensors[f"{n}.scale"], chosen) for n in names}
        self.bias = {n: tensors[f"{n}.bias"].double() for n in names}

    @torch.inference_mode()
    def __call__(self, steps: Tensor, rate: int) -> Tensor:
        """``steps [C, h, w] float64``, a decoded latent in steps; ``rate`` its index. Integers ``[5, width] float64``."""
        units = torch.round(steps * float(1 << STEP_BITS)) * self.inverse_gain[rate][:, None, None]
        units = units.clamp_(-_UNIT_LIMIT, _UNIT_LIMIT)
        cells = torch.cat((_cell_means(units), _cell_means(units.abs())), 1) * 2.0 ** -(STEP_BITS + GAIN_BITS)
        x = self._relu("first", (cells - self.offset) * self.factor)
        x = x + self._relu("mix", _neighbours(x, GRID, 1))
        x = self._relu("down", _neighbours(x, GRID, 2))
        x = x + self._relu("deep", _neighbours(x, GRID // 2, 1))
        quarters = x.reshape(2, 2, 2, 2, -1).transpose(1, 2).reshape(4, 4, -1)
        tokens = torch.cat(
            (self._layer("whole", _mean(x)[None]), self._layer("quarter", _mean(quarters.transpose(0, 1))))
        )
        return torch.round((tokens + self.place) * (SCALE * 2.0**RESIDUAL_BITS))

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.layers[name](x) + self.bias[name]

    def _relu(self, name: str, x: Tensor) -> Tensor:
        return self._layer(name, x).clamp_(min=0)


def _cell_means(units: Tensor) -> Tensor:
    """Means over an 8 x 8 division of ``[C, h, w]`` integers, cells row by row: ``[64, C]``. Cells overlap where sides
    are no multiples of 8, as in PyTorch's adaptive pooling."""
    height, width = units.shape[1:]
    rows = [(i * height // GRID, -(-(i + 1) * height // GRID)) for i in range(GRID)]
    cols = [(i * width // GRID, -(-(i + 1) * width // GRID)) for i in range(GRID)]
    return torch.stack(
        [units[:, a:b, c:d].sum((1, 2)) / float((b - a) * (d - c)) for a, b in rows for c, d in cols]
    )


def _neighbours(x: Tensor, side: int, stride: int) -> Tensor:
    """3x3 neighbourhoods of ``[side*side, C]`` with a border of zeros: ``[(side/stride)**2, 9*C]``, row by row."""
    field = torch.zeros(side + 2, side + 2, x.shape[1], dtype=x.dtype)
    field[1:-1, 1:-1] = x.reshape(side, side, -1)
    parts = [field[r : r + side : stride, c : c + side : stride] for r in range(3) for c in range(3)]
    return torch.cat(parts, 2).reshape((side // stride) ** 2, -1)


def _mean(x: Tensor) -> Tensor:
    """Mean over the first dimension, a power of two long: halves are added to halves, in this order everywhere."""
    count = len(x)
    while len(x) > 1:
        half = len(x) // 2
        x = x[:half] + x[half:]
    return x[0] * (1.0 / count)
