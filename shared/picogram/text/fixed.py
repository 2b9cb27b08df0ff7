# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Symbols of small fixed tables: the choices at the head of a text section."""

from __future__ import annotations

from collections.abc import Sequence

from picogram.text.token_rangecoder import WideRangeDecoder

Symbol = tuple[int, int, int]
"""``(low, frequency, total)``: what a range coder needs to know of a symbol."""


def fixed_symbol(counts: Sequence[int], value: int) -> Symbol:
    """The interval of ``value`` in a fixed table."""
    return sum(counts[:value]), counts[value], sum(counts)


def read_fixed(decoder: WideRangeDecoder, counts: Sequence[int]) -> int:
    """Read a symbol of a fixed table: its number, 0 to ``len(counts) - 1``. Raises as ``decoder.target``."""
    target, value, low = decoder.target(sum(counts)), 0, 0
    while target >= low + counts[value]:
        low += counts[value]
        value += 1
    decoder.advance(*fixed_symbol(counts, value))
    return value
