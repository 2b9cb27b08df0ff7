# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The coder ``static``: integer counts learnt from captions and a cache of the text itself. Needs no torch.

    text ── UTF-8 ── tokens: bytes, word pieces and words, END ── each under a blend of six tables ── range coder

The tables, from general to particular; each gives part of its weight to its own counts and the rest to the blend so far:
how frequent the token is (0), what follows the last token (1) and the last two (2) in the captions that were learnt, and
what the text itself has held so far (3), after the last token (4), after the last two (5).

Only integers decide: a blend is a cumulative function on a scale of 2**32, see ``_below``. The learnt counts are
shipped as ``static_model.bin``; ``docs/text.md`` gives the formats.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from picogram.errors import CorruptBitstream, ModelDamaged, ModelMissing
from picogram.text.raw import MAX_TEXT_BYTES, bytes_text, text_bytes
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

MODEL_FILE: Final = "static_model.bin"
MODEL_SHA256: Final = "f9602d963e4f70c9afa8a0905ddae52b952d4b8e0967a00d7ba27c7f0f3b3650"
SHARES: Final = 32
"""A learnt context gives a whole number of parts in so many to its own counts."""

_SCALE_BITS: Final = 32
_SCALE: Final = 1 << _SCALE_BITS
_CACHE: Final = ((_SCALE * 5 >> 4, 120), (_SCALE * 3 >> 2, 12), (_SCALE * 7 >> 3, 3))
"""Tables 3, 4, 5: the greatest weight of their counts, and the number of counts at which half of that is reached."""
_CACHE_LIMIT: Final = 1024

Table = tuple[Sequence[int], Sequence[int], int, int]
"""Token ids, ascending; the sum of the counts before each and of all; weight of a count; weight of the other tables."""


def write(encoder: WideRangeEncoder, text: str) -> None:
    """Append any Unicode text. Raises UsageError for lone surrogates or more than MAX_TEXT_BYTES."""
    write_with(static_model(), encoder, text)


def write_with(model: StaticModel, encoder: WideRangeEncoder, text: str) -> None:
    """Append any Unicode text under a given model. Raises as ``write``."""
    blend = _Blend(model)
    total = _SCALE + model.size
    for token in (*model.tokens(text_bytes(text)), model.end):
        tables = blend.tables()
        low = _below(model.base, tables, token)
        encoder.encode(low, _below(model.base, tables, token + 1) - low, total)
        blend.advance(token)


def read(decoder: WideRangeDecoder) -> str:
    """The text that ``write`` appended. Raises CorruptBitstream for what it cannot have written."""
    model = static_model()
    blend = _Blend(model)
    total = _SCALE + model.size
    data = bytearray()
    while True:
        tables = blend.tables()
        target = decoder.target(total)
        token, above = 0, model.size
        while above - token > 1:
            middle = token + above >> 1
            if _below(model.base, tables, middle) <= target:
                token = middle
            else:
                above = middle
        low = _below(model.base, tables, token)
        decoder.advance(low, _below(model.base, tables, token + 1) - low, total)
        if token == model.end:
            return bytes_text(bytes(data))
        data += model.strings[token]
        if len(data) > MAX_TEXT_BYTES:
            raise CorruptBitstream(f"a text is longer than the limit of {MAX_TEXT_BYTES} bytes")
        blend.advance(token)


def count(level: int) -> int:
    """The count that a level of the model's file stands for: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    return (2 + (level - 1) % 2) << (level - 1) // 2 if level else 1


def segment(data: bytes, costs: dict[bytes, int]) -> list[bytes]:
    """``data`` as the strings of ``costs`` of least total cost; every single byte must be among them."""
    longest = max(map(len, costs))
    best: list[tuple[int, int]] = [(0, 0)]  # for each end: the cost so far, and where the last string starts
    for end in range(1, len(data) + 1):
        options = []
        for start in range(max(0, end - longest), end):
            cost = costs.get(data[start:end])
            if cost is not None:
                options.append((best[start][0] + cost, start))
        best.append(min(options))
    strings, end = [], len(data)
    while end:
        start = best[end][1]
        strings.append(data[start:end])
        end = start
    return strings[::-1]


class StaticModel:
    """The learnt tables, from the unpacked bytes of the model's file.

    ``strings[token]`` are a token's bytes, empty for ``end``; ``size`` tokens in all; ``base[token]`` is the part of
    the scale, 0 to 2**32, that table 0 gives to the tokens before it.
    """

    def __init__(self, data: bytes) -> None:
        fields = _Fields(data)
        self.size = int(fields.numbers(1)[0])
        lengths = fields.take(self.size)
        self.strings = fields.strings(lengths)
        self.end = self.strings.index(b"")
        levels = fields.take(self.size)
        sums = [0, *accumulate(count(level) for level in levels)]
        self.base = [_SCALE * below // sums[-1] for below in sums]
        rare = 2 * sums[-1].bit_length()  # a level is half a bit
        self._costs = {s: rare - level for s, level in zip(self.strings, levels, strict=True) if s}
        self._ids = {string: token for token, string in enumerate(self.strings)}
        firsts = np.flatnonzero(fields.octets(self.size))
        self._one = _Contexts(fields, firsts)
        followers = fields.numbers(self.size)
        seconds = _ascending(fields.numbers(int(followers.sum())), followers)
        self._two = _Contexts(fields, np.repeat(np.arange(self.size), followers) * self.size + seconds)

    def tokens(self, data: bytes) -> list[int]:
        """Tokens whose bytes joined are ``data``; the coder works with any such, this is a cheap one."""
        return [self._ids[string] for string in segment(data, self._costs)]

    def learnt(self, before: int, last: int) -> list[Table]:
        """Tables 1 and 2 after two tokens, as far as there are any."""
        found = (self._one.table(last), self._two.table(before * self.size + last))
        return [table for table in found if table is not None]


class _Fields:
    """Reads the model's file: bytes, and 16-bit numbers as all low bytes, then all high bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, number: int) -> bytes:
        start, self._at = self._at, self._at + number
        return self._data[start : self._at]

    def octets(self, number: int) -> npt.NDArray[np.int64]:
        values: npt.NDArray[np.int64] = np.frombuffer(self.take(number), np.uint8).astype(np.int64)
        return values

    def numbers(self, number: int) -> npt.NDArray[np.int64]:
        values = self.octets(number)
        values += 256 * self.octets(number)
        return values

    def strings(self, lengths: Sequence[int]) -> list[bytes]:
        return [self.take(length) for length in lengths]


def _ascending(steps: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows of ascending ids, one after another, from the first id of each row and the steps to the next, less one."""
    sums = np.cumsum(steps + 1)
    starts = np.cumsum(sizes) - sizes
    before = np.concatenate(([0], sums))[starts]
    ids: npt.NDArray[np.int64] = sums - np.repeat(before, sizes) - 1
    return ids


class _Contexts:
    """Table 1 or 2 for all contexts: shares, numbers of tokens, their ids and the levels of their counts."""

    def __init__(self, fields: _Fields, keys: npt.NDArray[np.int64]) -> None:
        self._rows = {key: row for row, key in enumerate(keys.tolist())}
        self._shares = fields.take(len(keys))
        sizes = fields.numbers(len(keys))
        self._starts = np.concatenate(([0], np.cumsum(sizes))).tolist()
        self._ids = _ascending(fields.numbers(self._starts[-1]), sizes).tolist()
        self._levels = fields.take(self._starts[-1])
        self._tables: dict[int, Table] = {}

    def table(self, key: int) -> Table | None:
        row = self._rows.get(key)
        if row is None:
            return None
        if row not in self._tables:
            self._tables[row] = self._unpack(row)
        return self._tables[row]

    def _unpack(self, row: int) -> Table:
        part = slice(self._starts[row], self._starts[row + 1])
        sums = [0, *accumulate(count(level) for level in self._levels[part])]
        weight = (_SCALE * self._shares[row] // SHARES) // sums[-1]
        return self._ids[part], sums, weight, _SCALE - weight * sums[-1]


class _Cache:
    """Counts of what the text has held in one context; halved when they grow beyond a limit."""

    def __init__(self, greatest: int, half: int) -> None:
        self._greatest, self._half = greatest, half
        self._ids: list[int] = []
        self._sums = [0]

    def add(self, token: int) -> None:
        ids, sums = self._ids, self._sums
        at = bisect_left(ids, token)
        if at == len(ids) or ids[at] != token:
            ids.insert(at, token)
            sums.insert(at, sums[at])
        for index in range(at + 1, len(sums)):
            sums[index] += 1
        if sums[-1] > _CACHE_LIMIT:
            self._halve()

    def table(self) -> Table:
        number = self._sums[-1]
        weight = self._greatest // (number + self._half)
        return self._ids, self._sums, weight, _SCALE - weight * number

    def _halve(self) -> None:
        counts = [(above - below) // 2 for below, above in zip(self._sums, self._sums[1:], strict=False)]
        self._ids = [token for token, left in zip(self._ids, counts, strict=True) if left]
        self._sums = [0, *accumulate(left for left in counts if left)]


class _Blend:
    """The tables for the next token of a text, whose start counts as two END tokens."""

    def __init__(self, model: StaticModel) -> None:
        self._model = model
        self._before = self._last = model.end
        self._caches: dict[tuple[int, ...], _Cache] = {}

    def tables(self) -> list[Table]:
        found = (self._caches.get(key) for key in self._contexts())
        cached = [cache.table() for cache in found if cache is not None]
        return self._model.learnt(self._before, self._last) + cached

    def advance(self, token: int) -> None:
        for key, limits in zip(self._contexts(), _CACHE, strict=True):
            if key not in self._caches:
                self._caches[key] = _Cache(*limits)
            self._caches[key].add(token)
        self._before, self._last = self._last, token

    def _contexts(self) -> tuple[tuple[int, ...], ...]:
        return (), (self._last,), (self._before, self._last)


def _below(base: Sequence[int], tables: Sequence[Table], token: int) -> int:
    """The part of the total, 2**32 + the number of tokens, that belongs to the tokens before ``token``."""
    value = base[token]
    for ids, sums, weight, rest in tables:
        value = weight * sums[bisect_left(ids, token)] + (rest * value >> _SCALE_BITS)
    return value + token


def load(packed: bytes) -> StaticModel:
    """The model in a file's bytes; ModelDamaged if they are not those that this release was made with."""
    if hashlib.sha256(packed).hexdigest() != MODEL_SHA256:
        raise ModelDamaged(f"{MODEL_FILE} does not match its hash: reinstall picogram-codec")
    return StaticModel(zlib.decompress(packed))


@lru_cache(maxsize=1)
def static_model() -> StaticModel:
    """The shipped model, read at first use. Raises ModelMissing and ModelDamaged for a broken installation."""
    file = resources.files("picogram.text") / MODEL_FILE
    if not file.is_file():
        raise ModelMissing(f"{MODEL_FILE} is missing from this installation: reinstall picogram-codec")
    return load(file.read_bytes())
