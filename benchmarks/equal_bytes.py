# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of files of exactly one size, and what a change of encoder or words does to them, picture by picture.

    encode, score, budget ── at_budget ──> Scored ── VariantRow ──┬─ means ──> VariantMean ──┬─ markdown
                                                                  └─ changes ──> Change ─────┘

Rates come in steps of about 1.2 %, so that files stay below their budget by more or less. Where one leaves over 1 % of
it, a second file is made a little above the budget, and scores are read off between the two, on a line over the logarithm
of their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from picogram.bench.verdicts import Interval, interval, relative

MOST_UNUSED = 0.01
RESAMPLES = 2_000
_BEYOND = (1.02, 1.04, 1.08, 1.16)
"""Budgets tried for the second file, as parts of the first."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Scored:
    """``bytes``: of the file that keeps the budget, whose scores are ``measured``; ``scores``: at exactly the budget.

    ``second``: bytes of the larger file that this took, None: it was not needed, or no file is larger.
    """

    bytes: int
    second: int | None
    measured: Scores
    scores: Scores


@dataclass(frozen=True)
class VariantRow:
    """One picture in one variant at one rate."""

    image: str
    bpp: float
    variant: str
    budget: int
    scored: Scored


@dataclass(frozen=True)
class Metric:
    """A score by its name in ``Scores``; ``share``: changes are told in per cent of the mean."""

    key: str
    title: str
    digits: int
    share: bool = False


@dataclass(frozen=True)
class VariantMean:
    """One variant at one rate. ``unused``: mean share of budgets; ``moved``: of how many pictures scores were moved."""

    bpp: float
    variant: str
    pictures: int
    bytes: float
    unused: float
    moved: int
    scores: Scores


@dataclass(frozen=True)
class Change:
    """``variant`` less ``against``; ``relative``: as a share of the mean of ``against``, None for other scores."""

    bpp: float
    variant: str
    against: str
    metric: str
    difference: Interval
    relative: Interval | None


def at_budget(encode: Callable[[int], bytes], score: Callable[[bytes], Scores], budget: int) -> Scored:
    """``encode``: the best file of at most so many bytes. Raises what that raises, BudgetTooSmall for one."""
    data = encode(budget)
    size, measured = len(data), score(data)
    if budget - size <= MOST_UNUSED * budget:
        return Scored(size, None, measured, measured)
    tried = (encode(math.ceil(budget * share)) for share in _BEYOND)
    larger = next((file for file in tried if len(file) > budget), None)
    if larger is None:
        return Scored(size, None, measured, measured)
    part = math.log(budget / size) / math.log(len(larger) / size)
    beyond = score(larger)
    moved = {key: value + part * (beyond[key] - value) for key, value in measured.items()}
    return Scored(size, len(larger), measured, moved)


def means(rows: Iterable[VariantRow]) -> list[VariantMean]:
    """By rate and variant, in the order of the rows; unknown scores (nan) do not count."""
    groups: dict[tuple[float, str], list[VariantRow]] = {}
    for row in rows:
        groups.setdefault((row.bpp, row.variant), []).append(row)
    return [
        VariantMean(
            bpp,
            variant,
            pictures=len(some),
            bytes=_mean(row.scored.bytes for row in some),
            unused=_mean(1 - row.scored.bytes / row.budget for row in some),
            moved=sum(row.scored.second is not None for row in some),
            scores={key: _mean(row.scored.scores[key] for row in some) for key in some[0].scored.scores},
        )
        for (bpp, variant), some in groups.items()
    ]


def changes(
    rows: Sequence[VariantRow], pairs: Sequence[tuple[str, str]], metrics: Sequence[Metric]
) -> list[Change]:
    """For each rate all ``pairs`` of variants, over the pictures that both have."""
    found = []
    for bpp in dict.fromkeys(row.bpp for row in rows):
        by_variant: dict[str, dict[str, Scores]] = {}
        for row in rows:
            if row.bpp == bpp:
                by_variant.setdefault(row.variant, {})[row.image] = row.scored.scores
        for variant, against in pairs:
            some, other = by_variant.get(variant, {}), by_variant.get(against, {})
            found += [_change(bpp, variant, against, metric, some, other) for metric in metrics]
    return found


def _change(
    bpp: float,
    variant: str,
    against: str,
    metric: Metric,
    some: Mapping[str, Scores],
    other: Mapping[str, Scores],
) -> Change:
    both = [(some[image][metric.key], other[image][metric.key]) for image in some if image in other]
    both = [pair for pair in both if not any(map(math.isnan, pair))]
    a, b = [pair[0] for pair in both], [pair[1] for pair in both]
    difference = interval([x - y for x, y in both], RESAMPLES)
    share = relative(a, b, RESAMPLES) if metric.share else None
    return Change(bpp, variant, against, metric.key, difference, share)


def summary(rows: Sequence[VariantRow], pairs: Sequence[tuple[str, str]], metrics: Sequence[Metric]) -> Any:
    """Means, changes and rows, for JSON."""
    return {
        "means": [asdict(mean) for mean in means(rows)],
        "changes": [asdict(change) for change in changes(rows, pairs, metrics)],
        "rows": [_rounded(asdict(row)) for row in rows],
    }


def _rounded(value: Any) -> Any:
    """Scores of single pictures to the sixth digit: more would be noise."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def markdown(rows: Sequence[VariantRow], pairs: Sequence[tuple[str, str]], metrics: Sequence[Metric]) -> str:
    """For each rate a table of means and one of changes."""
    lines: list[str] = []
    found, differences = means(rows), changes(rows, pairs, metrics)
    for bpp in dict.fromkeys(mean.bpp for mean in found):
        some = [mean for mean in found if mean.bpp == bpp]
        lines += [f"### {bpp:g} bits per pixel, {max(mean.pictures for mean in some)} pictures", ""]
        lines += _table(["", "bytes", "unused", *(metric.title for metric in metrics)])
        lines += [_line([m.variant, f"{m.bytes:.0f}", f"{m.unused:.2%}", *_cells(m, metrics)]) for m in some]
        lines += ["", *_table(["change of", "against", *(metric.title for metric in metrics)], texts=2)]
        lines += _change_lines([change for change in differences if change.bpp == bpp], pairs, metrics)
        lines += [""]
    lines.append(
        f"Whole files. Where one leaves more than {MOST_UNUSED:.0%} of its budget, scores are moved to the budget "
        f"between it and a larger one. Brackets: 95% bootstrap intervals over pictures of paired changes, "
        f"{RESAMPLES:,} resamples; per cent: of the mean."
    )
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], texts: int = 1) -> list[str]:
    return [_line(head), "|" + "---|" * texts + "---:|" * (len(head) - texts)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(mean: VariantMean, metrics: Sequence[Metric]) -> Iterator[str]:
    for metric in metrics:
        value = mean.scores[metric.key]
        yield "" if math.isnan(value) else f"{value:.{metric.digits}f}"


def _change_lines(
    some: Sequence[Change], pairs: Sequence[tuple[str, str]], metrics: Sequence[Metric]
) -> Iterator[str]:
    by_name = {(change.variant, change.against, change.metric): change for change in some}
    for variant, against in pairs:
        cells = [_told(by_name[variant, against, metric.key], metric.digits) for metric in metrics]
        if any(cells):
            yield _line([variant, against, *cells])


def _told(change: Change, digits: int) -> str:
    if change.relative is not None:
        return _spelled(change.relative, 100, 1, "%")
    return _spelled(change.difference, 1, digits, "")


def _spelled(found: Interval, factor: float, digits: int, unit: str) -> str:
    if math.isnan(found.mean):
        return ""
    mean, low, high = (f"{factor * v:+.{digits}f}" for v in (found.mean, found.low, found.high))
    return f"{mean}{unit}" + ("" if math.isnan(found.low) else f" [{low}, {high}]")


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
