# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Focus: bits move to what matters, at the same size and for any decoder; bad maps and words are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import picogram
from picogram.bitstream import parse
from picogram.errors import UsageError
from picogram.latent.codec import load_codec
from picogram.latent.focus import INSIDE, OUTSIDE, Focus
from picogram.profiles.recipes import MAX_FOCUS_CHARACTERS
from picogram.semantics.joint import Joint
from picogram.semantics.places import place

BUDGET = 900


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """A quarter of the picture, not in its middle."""
    found = np.zeros((8, 8), bool)
    found[1:5, 3:7] = True
    return found


def errors(photo: Image.Image, data: bytes, mask: np.ndarray) -> tuple[float, float]:
    """Mean squared error inside and outside."""
    decoded = np.asarray(picogram.decode(data, steps=0), np.float64)
    square = np.square(decoded - np.asarray(photo, np.float64)).mean(2)
    inside = np.asarray(Image.fromarray(mask).resize(photo.size, Image.Resampling.NEAREST))
    return float(square[inside].mean()), float(square[~inside].mean())


@pytest.mark.parametrize("profile", ["base", "taco"])
def test_bits_move_to_what_matters_at_the_same_size(
    photo: Image.Image, mask: np.ndarray, profile: str
) -> None:
    plain, focused = (
        picogram.encode(
            photo, bytes=BUDGET, profile=profile, caption="" if profile == "taco" else None, focus=f
        )
        for f in (None, mask)
    )
    assert BUDGET * 0.98 <= len(plain) <= BUDGET
    assert BUDGET * 0.98 <= len(focused) <= BUDGET
    assert parse(focused).optional == {}
    (inside, outside), (inside_focused, outside_focused) = (
        errors(photo, data, mask) for data in (plain, focused)
    )
    assert inside_focused < 0.95 * inside
    assert outside_focused > outside


def test_a_quality_keeps_its_rate_and_saves_bytes_outside(photo: Image.Image, mask: np.ndarray) -> None:
    plain, focused = (picogram.encode(photo, quality=40, focus=f) for f in (None, mask))
    assert parse(plain).latent[0] == parse(focused).latent[0]
    assert len(focused) < len(plain)


def test_the_size_of_a_focused_file_is_estimated_within_a_few_bytes(
    photo: Image.Image, mask: np.ndarray
) -> None:
    codec = load_codec(1)
    analysed = codec.analyse(np.asarray(photo), focus=Focus.of(mask))
    assert abs(codec.estimate(analysed, 120) - len(codec.section(analysed, 120))) <= 8


def test_the_dead_zone_is_wide_outside_and_below_zero_inside(mask: np.ndarray) -> None:
    zone = Focus.of(mask).dead_zone(16, 24).view(16, 24)
    assert zone.dtype == torch.float64
    assert float(zone[5, 14]) == pytest.approx(INSIDE)
    assert float(zone[15, 0]) == pytest.approx(OUTSIDE)
    assert INSIDE - 1e-6 <= float(zone.min()) < float(zone.max()) <= OUTSIDE + 1e-6


def test_only_the_outside_is_softened(photo: Image.Image, mask: np.ndarray) -> None:
    picture = np.asarray(photo)
    softened = Focus.of(mask).softened(picture)
    changed = np.abs(softened.astype(int) - picture).sum(2)
    inside = np.asarray(Image.fromarray(mask).resize(photo.size, Image.Resampling.NEAREST))
    assert changed[~inside].mean() > 3
    assert changed[inside].mean() < 0.2 * changed[~inside].mean()
    assert not changed[64:128, 128:192].any()


@pytest.mark.parametrize(
    ("focus", "told"),
    [
        ("", "no words"),
        (" \n", "no words"),
        ("x" * (MAX_FOCUS_CHARACTERS + 1), "201 characters"),
        (np.ones(4), "rows and columns"),
        (np.ones((4, 4)), "tells nothing"),
        (np.full((4, 4), np.nan), "from 0 to 1"),
        ([[0, 2]], "from 0 to 1"),
        ([[0, -1]], "from 0 to 1"),
        ([["a", "b"]], "map of numbers"),
        (np.zeros((5000, 2)), "1 to 4096"),
        (np.zeros((0, 2)), "1 to 4096"),
        (object(), "map of numbers"),
    ],
)
def test_what_is_no_focus_is_refused_before_any_work(photo: Image.Image, focus: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        picogram.encode(photo, bytes=BUDGET, focus=focus)  # type: ignore[arg-type]


class Beholder:
    """Sees one thing in one corner, and knows one name for it."""

    name, scale = "beholder", 10.0

    def image_map(self, picture: Image.Image, side: int = 7) -> torch.Tensor:
        cells = torch.zeros(side, side, 2)
        cells[..., 0] = 1
        cells[: side // 3, : side // 3] = torch.tensor([0.0, 1.0])
        return cells

    def text(self, captions: list[str]) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0] if "boat" in c else [1.0, 0.0] for c in captions])


def test_words_point_to_what_they_name(photo: Image.Image) -> None:
    beholder: Joint = Beholder()  # type: ignore[assignment]
    weights = place(beholder, photo, "the red boat").weights
    side = len(weights)
    assert (weights[: side // 3, : side // 3] == 1).all()
    assert weights[side // 2 :].max() == 0
