# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Range coding of integers under tables of integer counts, cut to the shortest byte string that still decodes.

The coder is constriction's queue range coder: 32-bit words, 64-bit state, 24-bit counts (``docs/bitstream.md``
gives it in twenty lines). Symbols come in *runs*: arrays of integers that share one table. Words are written
big-endian; the string is cut after the fewest bytes for which zero padding decodes to the same symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import constriction
import numpy as np
import numpy.typing as npt

from picogram.errors import CorruptBitstream

COUNT_BITS = 24
TOTAL = 1 << COUNT_BITS
_WORD_BYTES = 4

Symbols = npt.NDArray[np.int32]


class CountTable:
    """A distribution over ``0..n-1`` with positive integer counts that sum to 2**24."""

    def __init__(self, counts: Sequence[int] | npt.NDArray[np.int64]) -> None:
        values = np.asarray(counts, dtype=np.int64)
        if len(values) < 2 or values.min() < 1 or int(values.sum()) != TOTAL:
            raise ValueError("counts must be at least two positive integers that sum to 2**24")
        self.counts = values
        # constriction turns floats w into cumulative counts floor(sum(w) * s) + index with s = (2**24 - n) / sum(w);
        # for w = count - 1, all integers, s is exactly 1 and the cumulative counts are exactly ours.
        weights = (values - 1).astype(np.float64)
        self.model = constriction.stream.model.Categorical(weights, perfect=False, lazy=False)

    def bits(self) -> npt.NDArray[np.float64]:
        """Ideal code length of each symbol; for estimates only."""
        lengths = np.asarray(COUNT_BITS - np.log2(self.counts.astype(np.float64)), dtype=np.float64)
        return lengths


class RangeEncoder:
    """Collects runs; ``finish`` returns the shortest string."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()
        self._runs: list[tuple[Symbols, CountTable]] = []

    def put(self, symbols: Symbols, table: CountTable) -> None:
        """Append a run of symbols, each in ``0..n-1`` of ``table``."""
        if len(symbols):
            self._coder.encode(symbols, table.model)
            self._runs.append((symbols, table))

    def finish(self) -> bytes:
        """The coded bytes (possibly none), checked by decoding."""
        words = self._coder.get_compressed()
        data = np.asarray(words, dtype=">u4").tobytes()
        return shortest_prefix(data, self._decodes)

    def _decodes(self, data: bytes) -> bool:
        decoder = RangeDecoder(data)
        try:
            return all(np.array_equal(decoder.get(len(s), table), s) for s, table in self._runs)
        except CorruptBitstream:
            return False


def shortest_prefix(data: bytes, decodes: Callable[[bytes], bool]) -> bytes:
    """Fewest leading bytes of ``data`` (the last one possibly raised by one) for which ``decodes`` holds."""
    best = data.rstrip(b"\0")
    for length in range(len(best) - 1, max(-1, len(data) - 3 * _WORD_BYTES), -1):
        prefix = int.from_bytes(data[:length], "big")
        candidates = [data[:length]]
        if prefix + 1 < 256**length:
            candidates.append((prefix + 1).to_bytes(length, "big"))
        found = next((c for c in candidates if decodes(c)), None)
        if found is None:
            break
        best = found.rstrip(b"\0") if decodes(found.rstrip(b"\0")) else found
    return best


class RangeDecoder:
    """Reads runs back. Nearly any byte string decodes to something: integrity is the container's checksum."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % _WORD_BYTES)
        self._coder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        )

    def get(self, count: int, table: CountTable) -> Symbols:
        """The next ``count`` symbols under ``table``; CorruptBitstream where no symbol fits."""
        if not count:
            return np.empty(0, np.int32)
        try:
            return np.asarray(self._coder.decode(table.model, count), dtype=np.int32)
        except AssertionError as error:  # how constriction reports a point outside the coding interval
            raise CorruptBitstream("the coded data do not fit the model") from error
