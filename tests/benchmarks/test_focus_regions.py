# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of the focus benchmark: sound polygons, masks of the right size and place, held-out photographs only."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.focus.photo_masks import FocusRow, Polygon, load_regions, rasterise, read_rows
from picogram.errors import UsageError

ROWS = read_rows()
Point = tuple[float, float]

each_row = pytest.mark.parametrize("row", ROWS, ids=[row.file for row in ROWS])


def area(polygon: Polygon) -> float:
    """Share of the picture, by the shoelace formula."""
    follows = polygon[1:] + polygon[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, follows, strict=True))) / 2


def turn(a: Point, b: Point, c: Point) -> float:
    """Positive where a, b, c turn one way, negative the other way."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def cross(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two edges cross in their inner parts."""
    (a, b), (c, d) = one, other
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def make_tar(path: Path, names: Iterable[str], size: tuple[int, int] = (400, 266)) -> Path:
    with tarfile.open(path, "w") as tar:
        for shade, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", size, (10 * shade, 100, 200)).save(buffer, "PNG")
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)
    return path


def one_row_table(folder: Path, row: FocusRow) -> Path:
    table = folder / "regions.json"
    content = {"file": row.file, "phrase": row.phrase, "polygon": row.polygon}
    table.write_text(json.dumps({"source": "a test", "regions": [content]}), encoding="utf-8")
    return table


def test_each_photograph_comes_once_with_a_short_phrase_of_its_own() -> None:
    phrases = [row.phrase for row in ROWS]
    assert 30 <= len(ROWS) <= 34
    assert len({row.file for row in ROWS}) == len(ROWS)
    assert len({phrase.lower() for phrase in phrases}) == len(ROWS)
    assert all(2 <= len(phrase.split()) <= 4 for phrase in phrases)


@each_row
def test_polygons_are_simple_and_lie_within_their_picture(row: FocusRow) -> None:
    polygon = row.polygon
    assert 6 <= len(polygon) <= 24
    assert all(0 <= value <= 1 for point in polygon for value in point)
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    assert not any(cross(one, other) for one, other in combinations(edges, 2))


@each_row
def test_masks_cover_a_fair_part_of_their_picture(row: FocusRow) -> None:
    mask = rasterise(row.polygon, 400, 300)
    assert 0.02 < mask.mean() < 0.6
    assert mask.mean() == pytest.approx(area(row.polygon), abs=0.01)


def test_a_rasterised_polygon_has_its_area_and_place() -> None:
    triangle = rasterise([(0.25, 0.5), (0.75, 0.5), (0.75, 1.0)], 400, 200)
    assert triangle.shape == (200, 400)
    assert triangle.dtype == np.bool_
    assert triangle.sum() == pytest.approx(400 * 200 / 8, rel=0.03)
    assert triangle[110, 290]
    assert not triangle[190, 110]
    assert not triangle[:99].any()


def test_photographs_are_read_from_a_tar_and_shrunk(tmp_path: Path) -> None:
    row = ROWS[0]
    tar = make_tar(tmp_path / "photos.tar", [row.file], size=(1000, 500))
    (photo,) = load_regions(tar, one_row_table(tmp_path, row))
    assert (photo.file, photo.phrase) == (row.file, row.phrase)
    assert photo.picture.mode == "RGB"
    assert photo.picture.size == (768, 384)
    assert photo.picture.getpixel((5, 5)) == (0, 100, 200)
    np.testing.assert_array_equal(photo.mask, rasterise(row.polygon, 768, 384))


def test_a_missing_photograph_is_refused_by_name(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "photos.tar", ["another.png"])
    with pytest.raises(UsageError, match=ROWS[0].file):
        load_regions(tar)


def test_a_photograph_that_training_sees_is_refused(tmp_path: Path) -> None:
    row = ROWS[0]
    tar = make_tar(tmp_path / "photos.tar", [row.file, *(f"z{k}.png" for k in range(9))])
    with pytest.raises(UsageError, match="held-out"):
        load_regions(tar, one_row_table(tmp_path, row))
