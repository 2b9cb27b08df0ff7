# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the rows of an ablation say: means, spread over seeds, paired differences with intervals, and plain verdicts.

    rows ── by profile, rate and variant ──> AblationMean
    rows ── picture by picture, seeds averaged ──> Interval of a difference ──> Verdict

Pictures are drawn again with replacement (percentile bootstrap); seeds are averaged first, for they say how much one
drawing differs from the next and not how much pictures do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from picogram.bench.word_variants import (
    BASE,
    CAPTION_ONLY,
    CORRECT,
    DRAWN,
    EMPTY,
    IGNORED,
    MISLED,
    NAMES_ONLY,
    OTHER_MAPS,
    SHUFFLED,
)

METRICS = ("lpips", "dists", "psnr")
RESAMPLES = 5_000
FEWEST_PICTURES = 6
"""For a verdict: fewer agree by chance too often, and their intervals come out too narrow."""
_LEVEL = 0.95

_Places = npt.NDArray[np.int64]
_Values = npt.NDArray[Any]


@dataclass(frozen=True)
class AblationRow:
    """One drawing. ``words_bytes`` are those of ``bytes`` that words take; equal ``digest`` means equal drawings."""

    profile: str
    bpp: float
    variant: str
    image: str
    seed: int
    budget: int
    bytes: int
    words_bytes: int
    digest: str
    lpips: float
    dists: float
    psnr: float


@dataclass(frozen=True)
class Kid:
    """Patch KIDs of all pictures of a case against the originals; nan with too few patches."""

    profile: str
    bpp: float
    variant: str
    seed: int
    kid: float
    kid_vgg: float


@dataclass(frozen=True)
class Interval:
    """A mean difference over ``pictures`` pictures with its 95% interval; nan with fewer than two."""

    mean: float
    low: float
    high: float
    pictures: int


@dataclass(frozen=True)
class Value:
    """A mean, and the deviation over seeds of what it would be with one seed (0: nothing is random)."""

    mean: float
    spread: float


@dataclass(frozen=True)
class AblationMean:
    """One variant over its pictures. ``shortfall``: the share of the budget that files leave unused."""

    profile: str
    bpp: float
    variant: str
    pictures: int
    seeds: int
    bytes: float
    shortfall: float
    words_bytes: float
    values: Mapping[str, Value]
    to_empty: Mapping[str, Interval]


@dataclass(frozen=True)
class Contrast:
    """Asked of a profile: is ``variant`` better than ``against``?"""

    subject: str
    variant: str
    against: str
    note: str


@dataclass(frozen=True)
class Verdict:
    """The answer to a question for one profile and rate."""

    profile: str
    bpp: float
    question: Contrast
    differences: Mapping[str, Interval]
    answer: str


QUESTIONS = (
    Contrast("drawing without words", DRAWN, BASE, "against the base picture of the same file"),
    Contrast("text", CORRECT, EMPTY, "at equal bytes"),
    Contrast("the right text", CORRECT, SHUFFLED, "against another picture's, at equal bytes"),
    Contrast("drawing by the words", CORRECT, IGNORED, "in the same file, against ignoring them"),
    Contrast("drawing by the right words", CORRECT, MISLED, "in the same file, against wrong ones"),
    Contrast("leaving the picture the words' bytes", EMPTY, IGNORED, "both drawn without words"),
    Contrast("objects", CORRECT, CAPTION_ONLY, "at equal bytes"),
    Contrast("the right maps", CORRECT, OTHER_MAPS, "against another picture's"),
    Contrast("details of objects", CORRECT, NAMES_ONLY, "at equal bytes"),
)


def means(rows: Sequence[AblationRow], kids: Sequence[Kid]) -> list[AblationMean]:
    """By profile, rate and variant, in the order of the rows."""
    cases = _grouped(rows)
    scores: dict[tuple[str, float, str], list[Kid]] = {}
    for score in kids:
        scores.setdefault((score.profile, score.bpp, score.variant), []).append(score)
    found = []
    for (profile, bpp, variant), some in cases.items():
        values = {metric: _value(_by_seed(some, metric)) for metric in METRICS}
        for name in ("kid", "kid_vgg"):
            values[name] = _value([getattr(k, name) for k in scores.get((profile, bpp, variant), [])])
        nothing = cases.get((profile, bpp, EMPTY), [])
        found.append(
            AblationMean(
                profile,
                bpp,
                variant,
                pictures=len({row.image for row in some}),
                seeds=len({row.seed for row in some}),
                bytes=_mean(row.bytes for row in some),
                shortfall=_mean(1 - row.bytes / row.budget for row in some),
                words_bytes=_mean(row.words_bytes for row in some),
                values=values,
                to_empty={metric: difference(some, nothing, metric) for metric in METRICS},
            )
        )
    return found


def verdicts(rows: Sequence[AblationRow]) -> list[Verdict]:
    """The answers to all questions that the rows can answer, by profile and rate.

    A question about objects counts the pictures that have some: others are drawn the same either way.
    """
    cases = _grouped(rows)
    found = []
    for profile, bpp in dict.fromkeys((row.profile, row.bpp) for row in rows):
        for question in QUESTIONS:
            pair = [cases.get((profile, bpp, name), []) for name in (question.variant, question.against)]
            if all(pair):
                some, other = _different(*pair)
                differences = {metric: difference(some, other, metric) for metric in METRICS}
                found.append(Verdict(profile, bpp, question, differences, answer(differences)))
    return found


def answer(differences: Mapping[str, Interval]) -> str:
    """In words what the intervals of LPIPS and DISTS say; lower is better."""
    intervals = differences["lpips"], differences["dists"]
    if any(interval.pictures < FEWEST_PICTURES for interval in intervals):
        return f"not measured: fewer than {FEWEST_PICTURES} pictures differ"
    better = [interval.high < 0 for interval in intervals]
    worse = [interval.low > 0 for interval in intervals]
    if all(better):
        return "pays"
    if all(worse):
        return "harms"
    if any(better) and any(worse):
        return "mixed: one metric gains, the other loses"
    if any(better) or any(worse):
        which = "LPIPS" if better[0] or worse[0] else "DISTS"
        return f"not shown: {which} alone {'gains' if any(better) else 'loses'}"
    return "not shown: both intervals hold zero"


def difference(some: Sequence[AblationRow], other: Sequence[AblationRow], metric: str) -> Interval:
    """``some`` less ``other`` over the pictures that both have."""
    a, b = (_by_image(rows, metric) for rows in (some, other))
    return interval([a[image] - b[image] for image in a if image in b])


def interval(paired: npt.ArrayLike, resamples: int = RESAMPLES) -> Interval:
    """Of the mean of ``paired [N]``, a difference for each picture."""
    values = np.asarray(paired, float)
    return _bootstrap(len(values), lambda drawn: values[drawn].mean(-1), resamples)


def relative(some: npt.ArrayLike, other: npt.ArrayLike, resamples: int = RESAMPLES) -> Interval:
    """Of the mean of ``some [N]`` over that of ``other [N]``, less one. Both have a value above 0 for each picture."""
    a, b = np.asarray(some, float), np.asarray(other, float)
    return _bootstrap(len(a), lambda drawn: a[drawn].mean(-1) / b[drawn].mean(-1) - 1, resamples)


def _bootstrap(pictures: int, measure: Callable[[_Places], _Values], resamples: int) -> Interval:
    """``measure``: of pictures by their places ``[..., N]``, some of them perhaps several times."""
    if not pictures:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(measure(np.arange(pictures)))
    if pictures < 2:
        return Interval(mean, math.nan, math.nan, pictures)
    drawn = measure(np.random.default_rng(1).integers(0, pictures, (resamples, pictures)))
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(mean, float(low), float(high), pictures)


def _different(
    some: Sequence[AblationRow], other: Sequence[AblationRow]
) -> tuple[list[AblationRow], list[AblationRow]]:
    """The rows of pictures that were not drawn alike."""
    digests = [{row.image: row.digest for row in rows} for rows in (some, other)]
    images = {image for image, digest in digests[0].items() if digests[1].get(image) != digest}
    return [row for row in some if row.image in images], [row for row in other if row.image in images]


def _grouped(rows: Iterable[AblationRow]) -> dict[tuple[str, float, str], list[AblationRow]]:
    cases: dict[tuple[str, float, str], list[AblationRow]] = {}
    for row in rows:
        cases.setdefault((row.profile, row.bpp, row.variant), []).append(row)
    return cases


def _by_image(rows: Iterable[AblationRow], metric: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.image, []).append(getattr(row, metric))
    return {image: _mean(values) for image, values in found.items()}


def _by_seed(rows: Iterable[AblationRow], metric: str) -> list[float]:
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row.seed, []).append(getattr(row, metric))
    return [_mean(values) for values in found.values()]


def _value(by_seed: Sequence[float]) -> Value:
    if not by_seed:
        return Value(math.nan, math.nan)
    return Value(_mean(by_seed), float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else 0.0)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
