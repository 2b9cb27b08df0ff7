# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Run a convolutional network over a large picture in overlapping tiles.

The overlap is at least the network's reach, so every kept value is computed from the same inputs as it would be on
the whole picture: there are no seams to blend. All lengths here are in latent positions (16 pixels).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

TILE = 96
"""Latent positions per side of a tile's kept part: 1536 pixels."""


@dataclass(frozen=True)
class Span:
    """One side of a tile: ``keep`` is the part that is kept, ``read`` includes the overlap."""

    keep: slice
    read: slice

    @property
    def inner(self) -> slice:
        """``keep`` within ``read``."""
        start = self.keep.start - self.read.start
        return slice(start, start + self.keep.stop - self.keep.start)


def spans(length: int, halo: int, tile: int = TILE) -> list[Span]:
    """Cover ``0..length`` with tiles; a side that nearly fits one tile is not cut."""
    if length <= tile + 2 * halo:
        return [Span(slice(0, length), slice(0, length))]
    count = -(-length // tile)
    edges = [length * i // count for i in range(count + 1)]
    return [Span(slice(a, b), slice(max(0, a - halo), min(length, b + halo))) for a, b in pairwise(edges)]


def tiles(height: int, width: int, halo: int, tile: int = TILE) -> Iterator[tuple[Span, Span]]:
    """Row and column spans of every tile."""
    for row in spans(height, halo, tile):
        for col in spans(width, halo, tile):
            yield row, col


def scaled(span: slice, factor: int) -> slice:
    """A span in finer units."""
    return slice(span.start * factor, span.stop * factor)
