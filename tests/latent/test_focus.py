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
from picogram.request import MAX_FOCUS_CHARACTERS
from picogram.semantics.features import CHANNELS, CLASSES, Features
from picogram.semantics.places import Places, classes_of, terms

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
    codec = load_codec()
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


# words


class Nothing:
    """A joint space for which all things are alike."""

    name, scale = "nothing", 10.0

    def cells(self, features: Features) -> torch.Tensor:
        return torch.ones(*features.spatial.shape[2:], 2)

    def text(self, captions: list[str]) -> torch.Tensor:
        return torch.ones(len(captions), 2)


class Corner(Nothing):
    """Sees one thing in the lower right corner, and knows one name for it."""

    def cells(self, features: Features) -> torch.Tensor:
        side = features.spatial.shape[2]
        cells = torch.zeros(side, side, 2)
        cells[..., 0] = 1
        cells[side * 3 // 4 :, side * 3 // 4 :] = torch.tensor([0.0, 1.0])
        return cells

    def text(self, captions: list[str]) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0] if "lyre" in caption else [1.0, 0.0] for caption in captions])


class Net:
    """Features that see nothing, but a class in the upper left corner."""

    def __init__(self, number: int | None = None) -> None:
        self.class_weight = torch.zeros(CLASSES, CHANNELS)
        self.number = number
        if number is not None:
            self.class_weight[number, 0] = 1

    def __call__(self, pixels: torch.Tensor) -> Features:
        side = pixels.shape[2] // 32
        spatial = torch.zeros(1, CHANNELS, side, side)
        if self.number is not None:
            spatial[:, 1] = 1  # as much to see everywhere
            spatial[:, 1, : side // 3, : side // 3] = 0
            spatial[:, 0, : side // 3, : side // 3] = 1
        return Features(spatial, spatial.mean((2, 3)), torch.zeros(1, CLASSES))


def four_colours() -> Image.Image:
    made = Image.new("RGB", (96, 64), "white")
    for box, colour in {(0, 0): (200, 30, 30), (48, 0): (30, 60, 200), (0, 32): (30, 140, 50)}.items():
        made.paste(colour, (*box, box[0] + 48, box[1] + 32))
    return made


def centre_of(weights: np.ndarray) -> tuple[float, float]:
    """Down and right, 0..1."""
    rows, cols = np.indices(weights.shape)
    side = len(weights) - 1
    return float((rows * weights).sum() / weights.sum() / side), float(
        (cols * weights).sum() / weights.sum() / side
    )


def found(net: object, joint: object, picture: Image.Image, words: str) -> tuple[float, float]:
    return centre_of(Places(net, joint).find(picture, words).weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "down", "right"),
    [("the red part", 0, 0), ("something blue.", 0, 1), ("Green", 1, 0), ("a white thing", 1, 1)],
)
def test_colours_that_are_named_are_found(words: str, down: int, right: int) -> None:
    place = found(Net(), Nothing(), four_colours(), words)
    assert place == pytest.approx((down, right), abs=0.4)


def test_sides_that_are_named_are_found() -> None:
    gray = Image.new("RGB", (64, 64), "gray")
    assert found(Net(), Nothing(), gray, "on the left")[1] < 0.3
    assert found(Net(), Nothing(), gray, "what is at the top right")[1] > 0.6


def test_classes_that_are_named_are_found() -> None:
    number = classes_of("goldfish")[0]
    gray = Image.new("RGB", (64, 64), "gray")
    down, right = found(Net(number), Nothing(), gray, "the goldfish's eye")
    assert max(down, right) < 0.4


def test_what_only_the_joint_space_knows_is_found() -> None:
    gray = Image.new("RGB", (64, 64), "gray")
    down, right = found(Net(), Corner(), gray, "the lyre")
    assert min(down, right) > 0.6


def test_where_nothing_tells_parts_apart_the_focus_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing in this picture"):
        Places(Net(), Nothing()).find(Image.new("RGB", (64, 64), "gray"), "a thing")  # type: ignore[arg-type]


def test_words_are_understood_without_their_endings() -> None:
    assert terms("The Weasel's head, (red).") == ["the", "weasel", "head", "red"]
    assert classes_of("of the a") == ()
