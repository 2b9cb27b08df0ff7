# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of numbers that callers give."""

from __future__ import annotations

from picogram.errors import UsageError


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """UsageError unless ``value`` is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}")


def check_number(name: str, value: float, low: float, high: float) -> None:
    """UsageError unless ``value`` is a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}")
