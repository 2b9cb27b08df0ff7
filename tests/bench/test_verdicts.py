# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of ablations: verdicts follow intervals, spreads are over seeds, fast distances agree with the metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from picogram.bench import result_tables
from picogram.bench.compare import DistsFrom
from picogram.bench.kid import patches, vgg_rows
from picogram.bench.verdicts import (
    FEWEST_PICTURES,
    METRICS,
    AblationRow,
    Interval,
    Kid,
    answer,
    difference,
    means,
    verdicts,
)
from picogram.errors import UsageError
from picogram.metrics.perceptual import dists_distance


def row(variant: str, image: str, seed: int, lpips: float, dists: float, digest: str = "") -> AblationRow:
    return AblationRow(
        "misc", 0.03, variant, image, seed, 100, 98, 9, digest or variant + image, lpips, dists, 20.0
    )


def rows_where(variant: str, lpips: float, dists: float, noise: float = 0.001) -> list[AblationRow]:
    """``variant`` better than ``empty`` by so much on six pictures, give or take ``noise``."""
    made = []
    for n in range(6):
        wobble = noise * (n - 2.5)
        made.append(row("empty", f"{n}.png", 0, 0.4 + n / 10, 0.3))
        made.append(row(variant, f"{n}.png", 0, 0.4 + n / 10 - lpips + wobble, 0.3 - dists - wobble))
    return made


@pytest.mark.parametrize(
    ("lpips", "dists", "noise", "expected"),
    [
        (0.02, 0.01, 0.001, "pays"),
        (-0.02, -0.01, 0.001, "harms"),
        (0.02, -0.01, 0.001, "mixed: one metric gains, the other loses"),
        (0.02, 0.0, 0.001, "not shown: LPIPS alone gains"),
        (0.0, -0.02, 0.001, "not shown: DISTS alone loses"),
        (0.0, 0.0, 0.001, "not shown: both intervals hold zero"),
        (0.001, 0.001, 0.1, "not shown: both intervals hold zero"),
    ],
)
def test_verdicts_follow_the_intervals(lpips: float, dists: float, noise: float, expected: str) -> None:
    (verdict,) = verdicts(rows_where("correct", lpips, dists, noise))
    assert (verdict.question.subject, verdict.answer) == ("text", expected)
    assert verdict.differences["lpips"].mean == pytest.approx(-lpips, abs=1e-9)
    assert expected in result_tables.sentence(verdict)


@pytest.mark.parametrize("pictures", [1, 2, FEWEST_PICTURES - 1])
def test_few_pictures_make_no_verdict(pictures: int) -> None:
    (verdict,) = verdicts(rows_where("correct", 0.02, 0.01)[: 2 * pictures])
    assert verdict.answer.startswith("not measured")
    assert verdict.differences["lpips"].pictures == pictures


def test_pictures_drawn_alike_do_not_count() -> None:
    some = [row("correct", f"{n}.png", 0, 0.3, 0.2, digest=f"same{n}" if n < 3 else "") for n in range(6)]
    some += [
        row("caption only", f"{n}.png", 0, 0.4, 0.3, digest=f"same{n}" if n < 3 else "") for n in range(6)
    ]
    (verdict,) = verdicts(some)
    assert verdict.differences["lpips"].pictures == 3


def test_intervals_are_of_paired_differences_with_seeds_averaged() -> None:
    some = [row("correct", f"{n}.png", seed, n + seed - 0.5, 0) for n in range(8) for seed in (0, 1)]
    other = [row("empty", f"{n}.png", 0, n + 0.25, 0) for n in range(8)]
    assert difference(some, other, "lpips") == Interval(-0.25, -0.25, -0.25, 8)
    wide = difference(some, [replace(r, lpips=r.lpips * 2) for r in other], "lpips")
    assert wide.low < wide.mean < wide.high


def test_spread_is_over_seeds() -> None:
    rows = [row("correct", f"{n}.png", seed, n + 0.1 * seed, 0.2) for n in range(4) for seed in range(3)]
    kids = [Kid("misc", 0.03, "correct", seed, 0.1 * seed, float("nan")) for seed in range(3)]
    (mean,) = means(rows, kids)
    assert mean.values["lpips"].mean == pytest.approx(1.6)
    assert mean.values["lpips"].spread == pytest.approx(0.1)
    assert mean.values["dists"].spread == pytest.approx(0)
    assert mean.values["kid"].mean == pytest.approx(0.1)
    assert mean.shortfall == pytest.approx(0.02)
    assert set(mean.to_empty) == set(METRICS)


def test_answers_need_both_metrics() -> None:
    better, unknown = Interval(-0.1, -0.2, -0.05, 9), Interval(-0.1, float("nan"), float("nan"), 1)
    assert answer({"lpips": better, "dists": better}) == "pays"
    assert answer({"lpips": better, "dists": unknown}).startswith("not measured")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "rows": [{}]}'])
def test_other_files_are_no_ablations(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ablation.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        result_tables.load(path)


def test_dists_of_many_is_dists_of_each() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, 3, 40, 30), (1, 8, 40, 30), (1, 16, 20, 15)]
    first, second, third = ([torch.rand(s, generator=generator) for s in shapes] for _ in range(3))
    second = [0.9 * a + 0.1 * b for a, b in zip(first, second, strict=True)]
    alpha, beta = ([torch.rand(1, s[1], generator=generator) / 60 for s in shapes] for _ in range(2))
    measure = DistsFrom(first, alpha, beta)
    for other in (second, third, first):
        assert measure(other) == pytest.approx(float(dists_distance(first, other, alpha, beta)), abs=1e-5)


@pytest.mark.parametrize("sides", [(64, 64), (63, 90), (120, 121), (128, 200), (20, 200)])
def test_both_kids_see_the_same_patches(sides: tuple[int, int]) -> None:
    cells = [(-(-sides[0] // s), -(-sides[1] // s)) for s in (8, 16)]
    features = [torch.rand(1, 5, *cell) for cell in cells]
    rows = vgg_rows(features, sides, 64)
    assert len(rows) == len(patches(torch.rand(3, *sides), 64))
    assert rows.shape[1] == 10
