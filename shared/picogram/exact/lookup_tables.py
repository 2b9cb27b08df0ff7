# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Integer look-ups: interpolation between rows of a table, and rounding division."""

from __future__ import annotations

import torch
from torch import Tensor


def divide_round(value: Tensor, divisor: int) -> Tensor:
    """``floor((2 value + divisor) / (2 divisor))`` for int64 values and a positive divisor: round half up."""
    return torch.div(2 * value + divisor, 2 * divisor, rounding_mode="floor")


def interpolate_rows(table: Tensor, index: int, last: int) -> Tensor:
    """Row of ``table [A, C] int64`` at ``index / last`` of its length, linear between rows, rounded half up: ``[C]``.

    Position ``index * (A - 1) / last`` is split into a whole row and ``fraction / last`` exactly.
    """
    row, fraction = divmod(index * (table.shape[0] - 1), last)
    if fraction == 0:
        return table[row]
    return divide_round(table[row] * (last - fraction) + table[row + 1] * fraction, last)
