# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The best setting of a codec whose whole file does not exceed a byte budget.

    for full and half size:   gallop and bisect over quality, file sizes alone ──> the largest file that fits
    of these finalists:       decode, enlarge, keep the one with the lower LPIPS
    if none fits:             quarter, then eighth size; else the smallest file of all, flagged as over budget

Down- and up-scaling are Lanczos and their size is known to both ends free of charge: kind to the baselines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from PIL import Image

from picogram.bench.codecs import BenchCodec
from picogram.bench.measuring import Reference

SCALES = (1, 2)
LAST_RESORTS = (4, 8)


@dataclass(frozen=True)
class Tried:
    """A file, the setting and the divisor of the sides that made it, and how long that took."""

    data: bytes
    quality: int
    scale: int
    seconds: float


@dataclass(frozen=True)
class Choice:
    """What the search settled on. ``over_budget`` tells that the codec has no smaller file."""

    encoded: Tried
    decoded: Image.Image
    decode_seconds: float
    over_budget: bool


def shrink(image: Image.Image, scale: int) -> Image.Image:
    """The picture with its sides divided by ``scale``, rounded up."""
    if scale == 1:
        return image
    size = -(-image.width // scale), -(-image.height // scale)
    return image.resize(size, Image.Resampling.LANCZOS)


def restore(image: Image.Image, scale: int, size: tuple[int, int]) -> Image.Image:
    """The decoded picture at the original's size; codecs that pad to even sides are cropped first."""
    coded = -(-size[0] // scale), -(-size[1] // scale)
    if image.size != coded:
        image = image.crop((0, 0, *coded))
    return image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)


class Search:
    """The search for one picture and one codec; files are kept, so that budgets share the encodings."""

    def __init__(self, codec: BenchCodec, reference: Reference) -> None:
        self.codec = codec
        self.reference = reference
        self._files: dict[tuple[int, int], Tried] = {}

    def choose(self, budget: int) -> Choice:
        """The best file of at most ``budget`` bytes, or the smallest one, flagged."""
        if self.codec.budgeted:
            return self._decode(self._encode(budget, 1), budget)
        finalists = [fit for scale in SCALES if (fit := self._largest_fit(scale, budget))]
        for scale in LAST_RESORTS:
            if not finalists and (fit := self._largest_fit(scale, budget)):
                finalists = [fit]
        if not finalists:
            finalists = [min(self._files.values(), key=lambda encoded: len(encoded.data))]
        choices = [self._decode(encoded, budget) for encoded in finalists]
        if len(choices) == 1:
            return choices[0]
        return min(choices, key=lambda choice: self.reference.lpips(choice.decoded))

    def _largest_fit(self, scale: int, budget: int) -> Tried | None:
        """The highest quality that fits, on the assumption that size grows with quality.

        Gallops up from the lowest, where the small budgets are and encoding is quick, then bisects.
        """
        qualities = self.codec.qualities
        best = self._fits(qualities[0], scale, budget)
        low, high, step = 1, len(qualities), 1
        while best and low < high:
            probe = min(low + step, high) - 1 if step else (low + high) // 2
            encoded = self._fits(qualities[probe], scale, budget)
            if encoded:
                best, low, step = encoded, probe + 1, step * 2
            else:
                high, step = probe, 0
        return best

    def _fits(self, quality: int, scale: int, budget: int) -> Tried | None:
        encoded = self._encode(quality, scale)
        return encoded if len(encoded.data) <= budget else None

    def _encode(self, quality: int, scale: int) -> Tried:
        if (quality, scale) not in self._files:
            start = time.perf_counter()
            small = shrink(self.reference.image, scale)
            data = self.codec.encode(small, quality)
            seconds = time.perf_counter() - start
            self._files[quality, scale] = Tried(data, quality, scale, seconds)
        return self._files[quality, scale]

    def _decode(self, encoded: Tried, budget: int) -> Choice:
        start = time.perf_counter()
        decoded = restore(self.codec.decode(encoded.data), encoded.scale, self.reference.image.size)
        seconds = time.perf_counter() - start
        return Choice(encoded, decoded, seconds, len(encoded.data) > budget)
