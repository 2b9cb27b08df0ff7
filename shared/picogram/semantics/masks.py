# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Lossless coding of an object's mask, ``[S,S] bool`` with S in MASK_SIDES, as part of a range-coded stream.

Pixels go row by row, each under the counts of zeros and ones that its context has seen. The context is ten pixels that
are already known (x is next; what lies outside the mask is 0), and all counts start from ``mask_counts.bin``, learnt on
smooth shapes of that size:

        9 5 8             bit of the context number
      7 1 2 3 6
    4 0 x

A mask that the model suits worse than none, such as noise, is written as plain bits; one symbol in front says which.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from picogram.errors import ModelDamaged, UsageError
from picogram.semantics.description import MASK_SIDES
from picogram.text.fixed import Symbol, fixed_symbol, read_fixed
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

Mask = npt.NDArray[np.bool_]

COUNTS_FILE: Final = "mask_counts.bin"
COUNTS_SHA256: Final = "4537c4391b0510b87a54ca899c02aed3ebd96e33037a09b5139cf84d4d0e47b8"
LEVELS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""The counts that the two half bytes of an entry of the file stand for: zeros above, ones below."""
CONTEXTS: Final = 1024
NEIGHBOURS: Final = (
    *((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2)),
    *((-2, 0), (-1, 2), (-1, -2), (-2, 1), (-2, -1)),
)
"""Row and column, relative to the pixel, of each bit of a context number, lowest first."""

_MODES: Final = (31, 1)  # counts of: modelled, plain bits
_MARGIN: Final = 2  # rows above, and columns at either side, that contexts reach beyond the mask


def write_mask(encoder: WideRangeEncoder, mask: Mask) -> None:
    """Append a mask; UsageError unless it is ``[S,S] bool`` with S in MASK_SIDES."""
    if (
        mask.dtype != np.bool_
        or mask.ndim != 2
        or mask.shape[0] != mask.shape[1]
        or len(mask) not in MASK_SIDES
    ):
        raise UsageError(
            f"a mask is square and boolean, of side {MASK_SIDES}; this is {mask.dtype} {mask.shape}"
        )
    pixels = mask.astype(int).tolist()
    modelled = [_symbol(counts, pixels[row][column]) for row, column, counts in _walk(pixels)]
    if _bits_exceed(modelled, mask.size + 5):
        encoder.encode(*fixed_symbol(_MODES, 1))
        symbols = [(value, 1, 2) for line in pixels for value in line]
    else:
        encoder.encode(*fixed_symbol(_MODES, 0))
        symbols = modelled
    for symbol in symbols:
        encoder.encode(*symbol)


def read_mask(decoder: WideRangeDecoder, side: int) -> Mask:
    """The mask that ``write_mask`` appended, ``[side,side] bool``; ``side`` must be one of MASK_SIDES.

    Any bytes give some mask, or CorruptBitstream.
    """
    if side not in MASK_SIDES:
        raise ValueError(f"no masks of side {side}")
    pixels = [[0] * side for _ in range(side)]
    if read_fixed(decoder, _MODES) == 1:
        for line in pixels:
            line[:] = [read_fixed(decoder, (1, 1)) for _ in line]
    else:
        for row, column, counts in _walk(pixels):
            pixels[row][column] = read_fixed(decoder, counts)
    return np.array(pixels, dtype=np.bool_)


def contexts(mask: Mask) -> npt.NDArray[np.int64]:
    """Context number of each pixel, ``[S,S]`` 0..1023; for training and for reading the format."""
    side = len(mask)
    padded = np.pad(mask, ((_MARGIN, 0), (_MARGIN, _MARGIN))).astype(np.int64)
    numbers = np.zeros((side, side), np.int64)
    for bit, (row, column) in enumerate(NEIGHBOURS):
        top, left = _MARGIN + row, _MARGIN + column
        numbers |= padded[top : top + side, left : left + side] << bit
    return numbers


def _walk(pixels: list[list[int]]) -> Iterator[tuple[int, int, list[int]]]:
    """Each pixel's place and the counts of its context. Learns a pixel's value when asked for the next one."""
    side = len(pixels)
    learnt = [list(pair) for pair in _start_counts(side)]
    outside = [0] * (side + 2 * _MARGIN)
    above, over = outside, outside  # one row up, two rows up, with their margins
    for row in range(side):
        line = pixels[row]
        for column in range(side):
            at = column + _MARGIN
            context = (
                (line[column - 1] if column > 0 else 0)
                | above[at - 1] << 1
                | above[at] << 2
                | above[at + 1] << 3
                | (line[column - 2] if column > 1 else 0) << 4
                | over[at] << 5
                | above[at + 2] << 6
                | above[at - 2] << 7
                | over[at + 1] << 8
                | over[at - 1] << 9
            )
            counts = learnt[context]
            yield row, column, counts
            counts[line[column]] += 1
        margin = [0] * _MARGIN
        above, over = margin + line + margin, above


def _symbol(counts: list[int], value: int) -> Symbol:
    zeros, ones = counts
    return (zeros, ones, zeros + ones) if value else (0, zeros, zeros + ones)


def _bits_exceed(symbols: list[Symbol], bits: int) -> bool:
    """Whether the symbols take more than so many bits; exact, so that all encoders agree."""
    return math.prod(total for _, _, total in symbols) > math.prod(f for _, f, _ in symbols) << bits


@lru_cache(maxsize=1)
def _counts_file() -> bytes:
    data = (resources.files("picogram.semantics") / COUNTS_FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != COUNTS_SHA256:
        raise ModelDamaged(f"{COUNTS_FILE} does not match its hash: reinstall picogram-codec")
    return data


def _start_counts(side: int) -> list[tuple[int, int]]:
    start = MASK_SIDES.index(side) * CONTEXTS
    return [(LEVELS[byte >> 4], LEVELS[byte & 15]) for byte in _counts_file()[start : start + CONTEXTS]]
