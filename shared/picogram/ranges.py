# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of numbers that callers give."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from picogram.errors import UsageError

MAX_MAP_SIDE: Final = 4096
"""Rows and columns of a focus map; far finer than anything that it changes."""


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """UsageError unless ``value`` is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}")


def check_number(name: str, value: float, low: float, high: float) -> None:
    """UsageError unless ``value`` is a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}")


def weights_map(weights: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """A focus map ``[h, w]`` 0..1 from anything like a mask or a map.

    Raises UsageError for what is none, or has nothing or all in focus.
    """
    try:
        found = np.asarray(weights, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError("a focus is words, or a map of numbers") from error
    if found.ndim != 2 or not 1 <= min(found.shape) <= max(found.shape) <= MAX_MAP_SIDE:
        raise UsageError(f"a focus map has rows and columns, 1 to {MAX_MAP_SIDE} of each")
    if not (np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1):
        raise UsageError("a focus map has weights from 0 to 1")
    if found.min() == found.max():
        raise UsageError("a focus map tells nothing: all of its weights are the same")
    return np.ascontiguousarray(found)
