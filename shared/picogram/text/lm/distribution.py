# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From integer logits to integer counts: a softmax that every machine computes alike.

``count = LUT[max - logit] + 1`` with ``LUT[k] = round(2**40 * exp(-k / 256))``: logits lie on a grid of 1/256 nat, and no
token is impossible. The counts of a vocabulary of 49,152 stay below 2**56 in sum.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from picogram.text.fixed import Symbol
from picogram.text.lm.lm_tables import exp_table

Logits = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

COUNT_BITS = 40
GRID_BITS = 8
_LUT_SIZE = 7680
"""exp(-30) * 2**40 is below one half: all further logits share the last entry, which is zero."""


@lru_cache(maxsize=1)
def _lut() -> Counts:
    return np.array(exp_table(_LUT_SIZE, GRID_BITS, COUNT_BITS), dtype=np.int64) + 1


def cumulative(logits: Logits) -> Counts:
    """Inclusive cumulative counts ``[..., V]`` of integer logits ``[..., V]`` in units of 1/256 nat."""
    distance = (logits.max(axis=-1, keepdims=True) - logits).astype(np.int64)
    return np.cumsum(_lut()[np.minimum(distance, _LUT_SIZE - 1)], axis=-1)


def symbol(cumulated: Counts, token: int) -> Symbol:
    """The interval of ``token`` in one row of cumulative counts."""
    low = int(cumulated[token - 1]) if token else 0
    return low, int(cumulated[token]) - low, int(cumulated[-1])


def token_at(cumulated: Counts, target: int) -> int:
    """The token whose interval holds ``target``."""
    return int(np.searchsorted(cumulated, target, side="right"))
