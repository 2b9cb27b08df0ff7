# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The measurement of profile ``taco``: equal bytes, whose captions are tried, and what changes of them are told."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks import taco_captions
from benchmarks.equal_bytes import Metric, Scored, VariantRow, at_budget, changes, markdown, means
from benchmarks.taco_captions import (
    BASE,
    CAPTIONER,
    CORRECT,
    DRAWN,
    EMPTY,
    METRICS,
    OTHER,
    PAIRS,
    SHUFFLED,
    CaptionedPicture,
    TacoResult,
    captions_tried,
    from_folder,
    held_out,
    run,
    words_shuffled,
)
from picogram.bench.verdicts import interval, relative
from picogram.errors import BudgetTooSmall, UsageError
from picogram.metrics.fidelity import psnr
from picogram.semantics.description import Description
from picogram.semantics.words import Words

BPP = 0.15


# Equal bytes


def files_of(sizes: Sequence[int], asked: list[int]) -> Callable[[int], bytes]:
    def encode(most: int) -> bytes:
        asked.append(most)
        fitting = [size for size in sizes if size <= most]
        if not fitting:
            raise BudgetTooSmall("none fits")
        return bytes(max(fitting))

    return encode


def logarithm(data: bytes) -> dict[str, float]:
    return {"score": 3 - 2 * math.log(len(data))}


def test_files_that_use_their_budget_are_taken_as_they_are() -> None:
    asked: list[int] = []
    found = at_budget(files_of([990, 1010], asked), logarithm, 1000)
    assert (found.bytes, found.second, asked) == (990, None, [1000])
    assert found.scores == found.measured == logarithm(bytes(990))


@pytest.mark.parametrize(("sizes", "second"), [([950, 1010, 1030], 1010), ([950, 1100], 1100)])
def test_scores_of_smaller_files_are_moved_to_the_budget(sizes: list[int], second: int) -> None:
    found = at_budget(files_of(sizes, []), logarithm, 1000)
    assert (found.bytes, found.second) == (950, second)
    assert found.measured == logarithm(bytes(950))
    assert found.scores["score"] == pytest.approx(3 - 2 * math.log(1000))


def test_scores_stay_where_no_file_is_larger() -> None:
    asked: list[int] = []
    found = at_budget(files_of([900], asked), logarithm, 1000)
    assert (found.second, found.scores) == (None, logarithm(bytes(900)))
    assert len(asked) <= 5
    with pytest.raises(BudgetTooSmall):
        at_budget(files_of([900], []), logarithm, 800)


# Numbers


def rows_of(values: dict[str, list[float]], bpp: float = 0.03) -> list[VariantRow]:
    def scored(value: float) -> Scored:
        scores = {"lpips": value, "gain": math.nan if value == 0.5 else -value}
        return Scored(98, None, scores, scores)

    return [
        VariantRow(f"{n}.png", bpp, variant, 100, scored(value))
        for variant, some in values.items()
        for n, value in enumerate(some)
    ]


LPIPS, GAIN = Metric("lpips", "LPIPS↓", 4, share=True), Metric("gain", "gain↑", 2)


def test_changes_are_paired_and_told_in_shares_of_the_mean() -> None:
    other = [0.2, 0.4, 0.6, 0.8]
    rows = rows_of({"a": other, "b": [0.9 * value for value in other]})
    lpips, gain = changes(rows, [("b", "a")], [LPIPS, GAIN])
    assert lpips.relative is not None
    assert [lpips.relative.mean, lpips.relative.low, lpips.relative.high] == pytest.approx([-0.1] * 3)
    assert lpips.difference.mean == pytest.approx(-0.05)
    assert lpips.difference.low < -0.05 < lpips.difference.high < 0
    assert gain.relative is None
    assert gain.difference.mean == pytest.approx(0.05)


def test_pictures_without_a_score_or_a_partner_do_not_count() -> None:
    rows = rows_of({"a": [0.2, 0.5, 0.6], "b": [0.3, 0.5]})
    lpips, gain = changes(rows, [("b", "a")], [LPIPS, GAIN])
    assert (lpips.difference.pictures, gain.difference.pictures) == (2, 1)
    first, second = means(rows)
    assert (first.pictures, second.pictures) == (3, 2)
    assert first.scores["gain"] == pytest.approx(-0.4)
    assert first.unused == pytest.approx(0.02)


def test_intervals_of_shares_are_of_ratios_of_means() -> None:
    a, b = [1.0, 3.0], [2.0, 2.0]
    assert relative(a, b).mean == 0
    assert (relative(a, b).low, relative(a, b).high) == pytest.approx((-0.5, 0.5))
    assert relative(a, [1.0, 3.0]).low == relative(a, [1.0, 3.0]).high == 0
    assert math.isnan(relative([], []).mean)
    assert math.isnan(interval([0.5]).low)
    wide, narrow = interval([0.0, 1.0] * 4, 2000), interval([0.0, 1.0] * 400, 2000)
    assert narrow.high - narrow.low < 0.2 * (wide.high - wide.low)


def test_tables_leave_out_what_was_not_compared() -> None:
    page = markdown(rows_of({"a": [0.2, 0.4], "b": [0.1, 0.2]}), [("b", "a"), ("c", "a")], [LPIPS, GAIN])
    assert "| a | 98 | 2.00% | 0.3000 | -0.30 |" in page
    assert "| b | a | -50.0% [-50.0, -50.0] | +0.15 [+0.10, +0.20] |" in page
    assert "| c |" not in page
    assert len({line.count("|") for line in page.splitlines()[2:5]}) == 1


# Captions


class Sees:
    """A captioner that knows pictures by their width."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [Description(f"A thing of width {picture.width}.") for picture in pictures]


class Hears(Words):
    """Hidden states without a language model."""

    def hear(self, captions: Sequence[str]) -> list[npt.NDArray[np.float16]]:
        return [np.full((len(caption.split()), 576), len(caption) % 7, np.float16) for caption in captions]


@pytest.fixture(scope="module")
def subjects(photos: list[Image.Image]) -> list[CaptionedPicture]:
    sizes = [(128, 96), (96, 128), (112, 96)]
    return [CaptionedPicture(f"{n}.png", photos[n].resize(size)) for n, size in enumerate(sizes)]


def test_words_are_shuffled_always_alike_and_all_kept() -> None:
    caption = "A brown dog runs over the green grass."
    mixed = words_shuffled(caption)
    assert mixed == words_shuffled(caption) != caption
    assert sorted(mixed.split()) == sorted(caption.split())
    assert words_shuffled("dog cat") == "cat dog"
    assert [words_shuffled(text) for text in ("", "dog", "dog dog")] == ["", "dog", "dog dog"]


def test_without_people_the_captioner_is_right(subjects: list[CaptionedPicture]) -> None:
    tried = captions_tried(subjects, Hears(captioner=Sees()))
    assert tried["0.png"][CORRECT] == "A thing of width 128."
    assert tried["0.png"][OTHER] in ("A thing of width 96.", "A thing of width 112.")
    assert tried["0.png"][EMPTY] == ""
    assert tried["0.png"][SHUFFLED] not in ("A thing of width 128.", "")
    assert CAPTIONER not in tried["0.png"]


def test_people_are_right_and_the_captioner_is_one_more(subjects: list[CaptionedPicture]) -> None:
    said = [CaptionedPicture(s.name, s.picture, f"Number {s.name[0]}.") for s in subjects]
    tried = captions_tried(said, Hears(captioner=Sees()))
    assert [tried[s.name][CORRECT] for s in said] == ["Number 0.", "Number 1.", "Number 2."]
    assert [tried[s.name][CAPTIONER].split()[-1] for s in said] == ["128.", "96.", "112."]
    assert all(tried[s.name][OTHER] not in (tried[s.name][CORRECT], "") for s in said)
    with pytest.raises(UsageError, match="no other picture"):
        captions_tried(said[:1], Hears(captioner=Sees()))


def test_pictures_and_captions_of_a_folder(tmp_path: Path, subjects: list[CaptionedPicture]) -> None:
    for subject in subjects:
        subject.picture.save(tmp_path / subject.name)
    table = tmp_path / "captions.csv"
    table.write_text("image_name,overall_description\n0.png,A woman.\n1.png,A cat.\n", encoding="utf-8")
    assert [s.caption for s in from_folder(tmp_path, None, None)] == [None, None, None]
    read = from_folder(tmp_path, table, 2)
    assert [(s.name, s.caption, s.picture.size) for s in read] == [
        ("0.png", "A woman.", (128, 96)),
        ("1.png", "A cat.", (96, 128)),
    ]


def test_held_out_photos_are_the_last_tenth_in_their_shapes(tmp_path: Path, photo: Image.Image) -> None:
    lines = []
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for n in range(40):
            buffer = io.BytesIO()
            photo.resize((32, 32)).save(buffer, "PNG")
            add(tar, f"{n:02d}.png", buffer.getvalue())
            aspect = 1.5 if n % 2 else 0.7
            row = {"file": f"{n:02d}.png", "captions": [f"Photo {n}.", "Else."], "true_aspect": aspect}
            lines.append(json.dumps(row))
        add(tar, "captions.jsonl", "\n".join(lines).encode())
    every = held_out(tmp_path / "photos.tar", None)
    assert [s.caption for s in every] == [f"Photo {n}." for n in (36, 37, 38, 39)]
    assert [s.picture.size for s in every] == [(192, 256), (256, 192)] * 2
    assert [s.caption for s in held_out(tmp_path / "photos.tar", 2)] == ["Photo 36.", "Photo 38."]
    (tmp_path / "none.tar").write_bytes(b"no tar")
    with pytest.raises(UsageError, match="no captioned photographs"):
        held_out(tmp_path / "none.tar", 2)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


# Runs


def compare(subject: CaptionedPicture, caption: str) -> taco_captions.Measure:
    """Distances that need no networks; agreement tells which caption came here."""

    def measured(picture: Image.Image) -> dict[str, float]:
        loss = psnr(subject.picture, picture)
        return {
            "lpips": 1 / loss,
            "dists": 2 / loss,
            "psnr": loss,
            "semantic": 0.5,
            "agreement": len(caption),
            "ms_ssim": 0,
        }

    return measured


def test_all_variants_are_measured_at_one_budget(subjects: list[CaptionedPicture]) -> None:
    result, seen = TacoResult({}), []
    run(subjects[:2], [BPP], Hears(captioner=Sees()), compare, result, lambda: seen.append(len(result.rows)))
    assert seen == [6, 12]
    assert {row.variant for row in result.rows} == {BASE, DRAWN, CORRECT, EMPTY, SHUFFLED, OTHER}
    for row in result.rows:
        width, height = subjects[int(row.image[0])].picture.size
        assert row.budget == int(BPP * width * height / 8)
        assert 0.8 * row.budget < row.scored.bytes <= row.budget
        assert set(row.scored.scores) == {metric.key for metric in METRICS}
        assert row.scored.scores["agreement"] == len(result.pictures[row.image]["captions"][CORRECT])
    by_variant = {row.variant: row.scored for row in result.rows if row.image == "0.png"}
    assert by_variant[BASE].bytes == by_variant[DRAWN].bytes
    assert json.loads(json.dumps(result.document()))["pictures"]["0.png"]["captions"][EMPTY] == ""
    assert markdown(result.rows, PAIRS, METRICS).count(f"| {CORRECT} |") == 1 + 4


def test_pictures_that_fit_no_budget_are_left_out_of_all_variants(subjects: list[CaptionedPicture]) -> None:
    result = TacoResult({})
    run(subjects[:2], [0.003, BPP], Hears(captioner=Sees()), compare, result)
    assert {row.bpp for row in result.rows} == {BPP}
    assert len(result.rows) == 12
    assert [sentence.split(":")[0] for sentence in result.left_out] == [
        "0.png at 0.003 bpp",
        "1.png at 0.003 bpp",
    ]
