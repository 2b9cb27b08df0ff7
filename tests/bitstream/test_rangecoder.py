# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The range coder: exact, short, and as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_reader import Words

from picogram.bitstream.rangecoder import TOTAL, CountTable, RangeDecoder, RangeEncoder
from picogram.errors import CorruptBitstream


def random_table(rng: np.random.Generator) -> CountTable:
    weights = rng.random(rng.integers(2, 80)) ** rng.integers(1, 30)
    counts = 1 + np.floor(weights / weights.sum() * (TOTAL - len(weights))).astype(np.int64)
    counts[rng.integers(len(counts))] += TOTAL - counts.sum()
    return CountTable(counts)


def random_runs(seed: int) -> list[tuple[np.ndarray, CountTable]]:
    rng = np.random.default_rng(seed)
    runs = []
    for _ in range(rng.integers(0, 8)):
        table = random_table(rng)
        probabilities = table.counts / TOTAL if rng.random() < 0.8 else None  # sometimes against the model
        symbols = rng.choice(len(table.counts), size=rng.integers(0, 60), p=probabilities)
        runs.append((symbols.astype(np.int32), table))
    return runs


def encoded(runs: list[tuple[np.ndarray, CountTable]]) -> bytes:
    encoder = RangeEncoder()
    for symbols, table in runs:
        encoder.put(symbols, table)
    return encoder.finish()


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_runs_round_trip(seed: int) -> None:
    runs = random_runs(seed)
    decoder = RangeDecoder(encoded(runs))
    for symbols, table in runs:
        assert np.array_equal(decoder.get(len(symbols), table), symbols)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_documented_decoder_reads_what_the_library_writes(seed: int) -> None:
    runs = random_runs(seed)
    words = Words(encoded(runs))
    for symbols, table in runs:
        cumulative = [0, *np.cumsum(table.counts).tolist()]
        assert [words.symbol(cumulative) for _ in symbols] == symbols.tolist()


def test_overhead_over_the_ideal_code_length_is_under_half_a_byte() -> None:
    excess = []
    for seed in range(300):
        runs = random_runs(seed)
        ideal = sum(float(table.bits()[symbols].sum()) for symbols, table in runs)
        excess.append(len(encoded(runs)) - ideal / 8)
    assert np.mean(excess) < 0.5
    assert max(excess) < 2


def test_nothing_costs_nothing() -> None:
    assert encoded([]) == b""


def test_random_bytes_decode_to_symbols_or_are_corrupt() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        decoder, table = RangeDecoder(rng.bytes(int(rng.integers(0, 40)))), random_table(rng)
        try:
            symbols = decoder.get(500, table)
        except CorruptBitstream:
            continue
        assert symbols.min() >= 0
        assert symbols.max() < len(table.counts)


@pytest.mark.parametrize("counts", [[TOTAL], [TOTAL, 0], [1, 1], [-5, TOTAL + 5]])
def test_tables_that_are_no_distribution_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="counts"):
        CountTable(counts)
