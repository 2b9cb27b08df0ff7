# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The text range coder: round trips, cost, the shortest ending, and refusal of impossible tables."""

from __future__ import annotations

from itertools import product
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogram.errors import CorruptBitstream
from picogram.text.token_rangecoder import MAX_TOTAL, WideRangeDecoder, WideRangeEncoder

Part = tuple[int, int, int]


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """A part of a total: totals of all magnitudes, frequencies from one to all of it, placed anywhere."""
    bits = draw(st.integers(0, 60))
    total = draw(st.integers(1 << bits >> 1 or 1, 1 << bits))
    frequency = draw(st.one_of(st.just(1), st.just(total), st.integers(1, total)))
    low = draw(st.one_of(st.just(0), st.just(total - frequency), st.integers(0, total - frequency)))
    return low, frequency, total


def encode(sequence: list[Part]) -> bytes:
    encoder = WideRangeEncoder()
    for part in sequence:
        encoder.encode(*part)
    return encoder.finish()


def assert_decodes(data: bytes, sequence: list[Part]) -> None:
    decoder = WideRangeDecoder(data)
    for low, frequency, total in sequence:
        assert low <= decoder.target(total) < low + frequency
        decoder.advance(low, frequency, total)


def ideal_bits(sequence: list[Part]) -> float:
    return sum(log2(total / frequency) for _, frequency, total in sequence)


@settings(deadline=None)
@given(st.lists(parts(), max_size=60))
def test_any_parts_round_trip_within_a_byte_of_the_ideal(sequence: list[Part]) -> None:
    data = encode(sequence)
    assert_decodes(data, sequence)
    assert 8 * len(data) <= ideal_bits(sequence) + 8.001


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=400))
def test_skewed_tables_near_the_largest_total(symbols: list[int]) -> None:
    edges = [0, 1, 2, MAX_TOTAL - 1, MAX_TOTAL]  # one symbol has nearly everything, the others a unit each
    sequence = [(edges[s], edges[s + 1] - edges[s], MAX_TOTAL) for s in symbols]
    data = encode(sequence)
    assert_decodes(data, sequence)
    assert 8 * len(data) <= ideal_bits(sequence) + 8.001


@settings(deadline=None)
@given(st.lists(parts().filter(lambda part: log2(part[2] / part[1]) < 6), max_size=3))
def test_no_shorter_string_decodes(sequence: list[Part]) -> None:
    data = encode(sequence)
    for length in range(min(len(data), 2)):
        for shorter in product(range(256), repeat=length):
            with pytest.raises((AssertionError, CorruptBitstream)):
                assert_decodes(bytes(shorter), sequence)


@settings(deadline=None)
@given(st.lists(parts(), max_size=20), st.integers(1, 30))
def test_zero_bytes_at_the_end_change_nothing_and_are_not_written(sequence: list[Part], zeros: int) -> None:
    data = encode(sequence)
    assert not data.endswith(b"\0")
    assert_decodes(data + bytes(zeros), sequence)


def test_a_carry_runs_through_bytes_of_255() -> None:
    around_the_half = [(MAX_TOTAL // 2 - 1, 2, MAX_TOTAL)] * 50
    below, above = [*around_the_half, (0, 1, 2)], [*around_the_half, (1, 1, 2)]
    assert encode(below)[:300] == b"\x7f" + b"\xff" * 299
    assert encode(above) == b"\x80"
    assert_decodes(encode(below), below)
    assert_decodes(encode(above), above)


def test_nothing_and_certainty_take_no_bytes() -> None:
    assert encode([]) == b""
    assert encode([(0, 7, 7)] * 1000) == b""


def test_finish_may_be_called_midway() -> None:
    encoder = WideRangeEncoder()
    encoder.encode(3, 2, 10)
    early = encoder.finish()
    encoder.encode(1, 1, 1000)
    assert_decodes(early, [(3, 2, 10)])
    assert_decodes(encoder.finish(), [(3, 2, 10), (1, 1, 1000)])


@pytest.mark.parametrize(
    "part", [(-1, 2, 4), (0, 0, 4), (0, -1, 4), (3, 2, 4), (0, 1, 0), (0, 1, MAX_TOTAL + 1), (4, 1, 4)]
)
def test_impossible_parts_are_refused(part: Part) -> None:
    with pytest.raises(ValueError, match="not a part"):
        WideRangeEncoder().encode(*part)
    with pytest.raises(ValueError, match="not a part"):
        WideRangeDecoder(b"abc").advance(*part)


@pytest.mark.parametrize("total", [0, -5, MAX_TOTAL + 1])
def test_impossible_totals_are_refused(total: int) -> None:
    with pytest.raises(ValueError, match="not a part"):
        WideRangeDecoder(b"abc").target(total)


def test_a_value_that_no_symbol_owns_is_corrupt() -> None:
    with pytest.raises(CorruptBitstream):
        WideRangeDecoder(b"\xff" * 12).target(3 * 2**50 + 1)
