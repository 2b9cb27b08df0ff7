# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The latent of a picture at the best rate that fits, beside whatever words the file carries.

picture ── halve 0..3 times ── latent codec at the best rate that fits ── effort ── .pico
hints ──────────────────────────────┘
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.bitstream.container import MAX_HALVINGS
from picogram.errors import BudgetTooSmall
from picogram.latent.codec import Analysed, PhotoCodec, load_codec
from picogram.latent.effort import WHOLE, Refined, passes_of
from picogram.latent.exact_prior import RATE_COUNT
from picogram.pipeline.prepare import Hints, sections_size

FINEST_RATE = RATE_COUNT - 1
_PROBES = 6
_TYPICAL_BPP, _TYPICAL_SLOPE = 0.0038, 0.0147
"""Bits per pixel of a photograph at rate index 0, and growth of its logarithm per index."""
_ROUNDS, _TRIMS, _AGAIN, _AIM = 3, 6, 2, 0.995
"""Of a search: rounds, how often more may follow until the file fits, with how many passes, and the share to aim at."""
_SHRINK_BELOW = 2
"""A picture is halved when its budget only reaches rate indices under this at the larger size."""


Progress = Callable[[float], None]


@dataclass(frozen=True)
class FilePlan:
    """What is to be written: ``words`` are ready sections by name, ``hints`` shape the latent, ``effort`` is 0 to 2.

    ``progress`` hears before each pass of a search how much of it is done, 0 to 1, and may stop it by raising.
    """

    profile: Profile = Profile.BASE
    words: Mapping[str, bytes] = field(default_factory=dict)
    hints: Hints = field(default_factory=Hints)
    effort: int = 0
    progress: Progress | None = None


_PLAIN = FilePlan()


@dataclass(frozen=True)
class _Candidate:
    """A picture at one size, ready to be coded at any rate."""

    codec: PhotoCodec
    analysed: Analysed
    header: Header
    words: Mapping[str, bytes]

    @property
    def pixels(self) -> int:
        width, height = self.header.coded_size
        return width * height

    def file(self, rate: int) -> bytes:
        return self.whole(self.codec.section(self.analysed, rate))

    def whole(self, section: bytes) -> bytes:
        return serialise(Picogram(self.header, section, dict(self.words)))

    def refined(self, found: Refined) -> _Candidate:
        return replace(self, analysed=replace(self.analysed, refined=found))

    def estimate(self, rate: int) -> float:
        """Bytes of the file at a rate, without its words."""
        overhead = len(serialise(Picogram(self.header, b"")))
        return overhead + self.codec.estimate(self.analysed, rate)


def encode_quality(picture: Image.Image, rate: int, plan: FilePlan = _PLAIN) -> bytes:
    """Code an RGB picture at a rate index 0..255."""
    candidate = _candidate(picture, 0, plan)
    plain = candidate.file(rate)
    return _searched(candidate, plain, len(plain), plan)


def encode_within(picture: Image.Image, budget: int, plan: FilePlan = _PLAIN) -> bytes:
    """Code an RGB picture into at most ``budget`` bytes, words included, as close below as the rate steps allow.

    Raises BudgetTooSmall, which names the smallest size that would do.
    """
    room = budget - sections_size(plan.words)
    for halvings in range(MAX_HALVINGS + 1):
        candidate = _candidate(picture, halvings, plan)
        rate = largest_rate(candidate.estimate, room, candidate.pixels) if room > 0 else None
        if rate is not None and (rate >= _SHRINK_BELOW or halvings == MAX_HALVINGS):
            found = _largest_file(candidate, rate, budget)
            if found is not None:
                return _searched(candidate, found, budget, plan)
    smallest = candidate.file(0)
    if len(smallest) > budget:
        raise BudgetTooSmall(f"no file of this picture fits {budget} bytes; the smallest has {len(smallest)}")
    return smallest


def _searched(candidate: _Candidate, plain: bytes, budget: int, plan: FilePlan) -> bytes:
    """The best file of at most ``budget`` bytes at the rate of ``plain``, which fits: by the search's loss.

    The integers that are found hardly change with the rate, so that no rate makes them fit. Instead the search goes on
    at another price of the distance, lower where the file is too large.
    """
    passes = passes_of(plan.effort, candidate.pixels)
    if not passes:
        return plain
    codec, section = candidate.codec, parse(plain).latent
    search = codec.refinement(candidate.analysed, section[0])
    if plan.progress:
        search.watch = _counted(plan.progress, passes)
    best, lowest = plain, search.loss(*codec.latent(section, *candidate.header.coded_size), 1.0)
    share = -(-passes // _ROUNDS)
    trims = _TRIMS if candidate.pixels <= WHOLE else max(1, min(_TRIMS, passes // 4))
    shares = [share] * min(_ROUNDS, passes) + ([_AGAIN] * trims if share > 1 else [1])
    for number, share in enumerate(shares):
        if number >= min(_ROUNDS, passes) and best is not plain:
            break
        found = codec.section(candidate.refined(search.run(share)).analysed, section[0])
        file, size = candidate.whole(found), len(found) / len(section)
        if len(file) <= budget:
            loss = search.loss(*codec.latent(found, *candidate.header.coded_size), size)
            best, lowest = (file, loss) if loss < lowest else (best, lowest)
        room = budget - len(file) + len(found)
        search.steer(_AIM * room / len(found))
    return best


def _counted(progress: Progress, passes: int) -> Callable[[], None]:
    """Tells how much is done before each pass; those that trim the file come at the end."""
    done = itertools.count()

    def tell() -> None:
        progress(min(0.99, next(done) / passes))

    return tell


def largest_rate(estimate: Callable[[int], float], budget: int, pixels: int = 1 << 18) -> int | None:
    """Largest rate index whose estimated size fits, None if none does; each estimate costs a pass of the prior.

    Starts where a typical picture of ``pixels`` would be and follows the logarithm of the size: by a typical slope until
    there is a size on either side, by secants after that. Stops within half a percent below the budget.
    """
    low, high = -1, RATE_COUNT
    sizes: dict[int, float] = {}
    guess = int(math.log(8 * budget / pixels / _TYPICAL_BPP) / _TYPICAL_SLOPE)
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        size = sizes[guess] = estimate(guess)
        if size <= budget:
            low = guess
            if size > budget * 0.995:
                break
        else:
            high = guess
        slope = _TYPICAL_SLOPE
        if low in sizes and high in sizes:
            slope = max(1e-6, math.log(sizes[high] / sizes[low]) / (high - low))
        anchor = low if low in sizes else high
        guess = anchor + math.floor(math.log(budget / sizes[anchor]) / slope)
    return low if low >= 0 else None


def _largest_file(candidate: _Candidate, rate: int, budget: int) -> bytes | None:
    """The real file at ``rate`` or, where the estimate was a little short, just under it."""
    for step in range(_PROBES):
        if rate - step < 0:
            break
        data = candidate.file(rate - step)
        if len(data) <= budget:
            return data
    return None


def _candidate(picture: Image.Image, halvings: int, plan: FilePlan) -> _Candidate:
    codec, hints = load_codec(), plan.hints
    header = Header(plan.profile, picture.width, picture.height, codec.model, halvings)
    if halvings:
        picture = picture.resize(header.coded_size, Image.Resampling.LANCZOS)
    analysed = codec.analyse(np.asarray(picture), hints.guide(), hints.focus)
    return _Candidate(codec, analysed, header, plan.words)
