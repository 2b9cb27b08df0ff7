# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The measurement of ``--focus``: LPIPS and PSNR by region, where words are found, equal bytes for all variants."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from benchmarks.focus.focus_scores import (
    MASK,
    METRICS,
    OTHER,
    PHRASE,
    PROFILES,
    FocusResult,
    lift,
    measure,
    other_phrase,
    region_scores,
)
from benchmarks.focus.photo_masks import FocusPhoto
from picogram.bench.measuring import to_tensor
from picogram.errors import ModelMissing, UsageError
from picogram.latent.focus import Focus
from picogram.metrics import weights
from picogram.metrics.perceptual import Lpips, load_lpips, lpips_map
from picogram.semantics.description import Description
from picogram.semantics.words import Words

BPP = 0.08
"""At finer rates small pictures reach the finest one, whose files do not use their budget."""
_SHAPES = ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256))


def random_lpips() -> Lpips:
    """LPIPS with random weights: distances without meaning, but distances."""
    random = np.random.default_rng(1)

    def convolution(size: int, inputs: int, outputs: int) -> dict[str, npt.NDArray[np.float32]]:
        kernel = random.normal(0, (2 / (size * size * inputs)) ** 0.5, (size, size, inputs, outputs))
        return {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}

    arrays = {"AlexNet_0": {f"Conv_{i}": convolution(*shape) for i, shape in enumerate(_SHAPES)}}
    for i, (_, _, outputs) in enumerate(_SHAPES):
        kernel = random.random((1, 1, outputs, 1)).astype(np.float32)
        arrays[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": kernel}}
    return Lpips(arrays, "alex").eval()


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return random_lpips()


@pytest.fixture(scope="module")
def published() -> Lpips:
    try:
        return load_lpips(weights.pull(progress=False))
    except ModelMissing as error:
        pytest.skip(str(error))


def blurred(picture: Image.Image, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    damaged = picture.filter(ImageFilter.GaussianBlur(4))
    if box is None:
        return damaged
    part = picture.copy()
    part.paste(damaged.crop(box), box)
    return part


# Distances by place


@pytest.mark.metrics
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_mean_of_the_map_is_the_distance(
    published: Lpips, photos: list[Image.Image], number: int
) -> None:
    x, y = to_tensor(photos[number]), to_tensor(blurred(photos[number]))
    found = published.spatial(x, y)
    assert found.shape == (1, photos[number].height, photos[number].width)
    assert float(found.mean()) == pytest.approx(float(published(x, y)), rel=0.01)


def test_maps_of_batches_are_those_of_their_pictures(lpips: Lpips, photo: Image.Image) -> None:
    x, y = to_tensor(photo), to_tensor(blurred(photo))
    both = lpips.spatial(torch.cat([x, y]), torch.cat([y, y]))
    torch.testing.assert_close(both[:1], lpips.spatial(x, y))
    assert both[1].abs().max() == 0


def test_damage_is_found_where_it_is(lpips: Lpips, photo: Image.Image) -> None:
    damaged = blurred(photo, (0, 0, 96, 256))
    found = lpips.spatial(to_tensor(photo), to_tensor(damaged))[0]
    assert found[:, :96].mean() > 10 * found[:, 192:].mean()


def test_depths_add_up_at_every_pixel() -> None:
    def features(values: Sequence[Sequence[float]]) -> Tensor:
        plane = torch.tensor(values)
        return torch.stack([plane, 1 - plane])[None]

    same, other = features([[1.0, 1.0], [1.0, 1.0]]), features([[0.0, 1.0], [1.0, 1.0]])
    heads = [torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)]
    found = lpips_map([same], [other], heads, (2, 2))
    torch.testing.assert_close(found, torch.tensor([[[5.0, 0.0], [0.0, 0.0]]]))
    twice = lpips_map([same, same[..., :1, :1]], [other, other[..., :1, :1]], heads * 2, (2, 2))
    torch.testing.assert_close(twice, found + 5)


def test_scores_are_told_by_region(lpips: Lpips, photo: Image.Image) -> None:
    mask = np.zeros((photo.height, photo.width), np.bool_)
    mask[:, :128] = True
    original = to_tensor(photo)
    inside = region_scores(original, to_tensor(blurred(photo, (0, 0, 128, 256))), mask, lpips)
    outside = region_scores(original, to_tensor(blurred(photo, (128, 0, 256, 256))), mask, lpips)
    assert set(inside) == {metric.key for metric in METRICS}
    assert inside["psnr_outside"] == outside["psnr_inside"] == 100
    assert inside["psnr_inside"] < 40
    assert inside["lpips_inside"] > 5 * inside["lpips_outside"]
    assert outside["lpips_outside"] > 5 * outside["lpips_inside"]
    assert inside["lpips"] == pytest.approx((inside["lpips_inside"] + inside["lpips_outside"]) / 2, rel=1e-4)


def test_psnr_of_a_region_is_of_its_pixels_alone(lpips: Lpips) -> None:
    original = torch.full((1, 3, 64, 64), 0.5)
    decoded = original.clone()
    decoded[..., :32] += 0.1
    decoded[..., 32:] += 0.01
    mask = np.zeros((64, 64), np.bool_)
    mask[:, :32] = True
    found = region_scores(original, decoded, mask, lpips)
    assert (found["psnr_inside"], found["psnr_outside"]) == pytest.approx((20, 40), abs=1e-3)


# Maps


def test_lift_is_weight_on_the_mask_over_its_area() -> None:
    mask = np.zeros((80, 120), np.bool_)
    mask[:40, :60] = True
    corner, everywhere = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    corner[0, 0] = 0.3
    assert lift(corner, mask) == pytest.approx(4)
    assert lift(1 - corner / 0.3, mask) == 0
    assert lift(everywhere, mask) == pytest.approx(1)
    assert lift(np.array([[1, 1], [0, 0]], np.float32), mask) == pytest.approx(2)


# Runs


class Sees:
    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [Description("A thing.") for _ in pictures]


class Places(Words):
    """Words that lie to the left, or to the right; others are nowhere."""

    def hear(self, captions: Sequence[str]) -> list[npt.NDArray[np.float16]]:
        return [np.ones((3, 576), np.float16) for _ in captions]

    def place(self, picture: Image.Image, words: str) -> Focus:
        sides = {"the left": [[1, 0]], "the right": [[0, 1]]}
        return Focus.of(np.array(sides.get(words, [[0, 0]]), np.float32))


def photo_of(picture: Image.Image, name: str, phrase: str) -> FocusPhoto:
    small = picture.resize((192, 128))
    mask = np.zeros((128, 192), np.bool_)
    mask[:, slice(0, 96) if phrase == "the left" else slice(96, 192)] = True
    return FocusPhoto(name, phrase, small, mask)


@pytest.fixture(scope="module")
def regions(photos: list[Image.Image]) -> list[FocusPhoto]:
    return [photo_of(photos[0], "0.png", "the left"), photo_of(photos[1], "1.png", "the right")]


@pytest.fixture(scope="module")
def result(regions: list[FocusPhoto], lpips: Lpips) -> FocusResult:
    found, seen = FocusResult(), []
    measure(regions, [BPP], Places(captioner=Sees()), lpips, found, lambda: seen.append(len(found.rows)))
    assert seen == [8, 16]
    return found


def test_controls_get_another_photos_phrase(regions: list[FocusPhoto]) -> None:
    assert [other_phrase(regions, n) for n in (0, 1)] == ["the right", "the left"]
    some = [regions[0], regions[0], regions[1], regions[0]]
    assert [other_phrase(some, n) for n in range(4)] == ["the right", "the right", "the left", "the right"]
    with pytest.raises(UsageError, match="same phrase"):
        other_phrase(regions[:1], 0)


def test_all_variants_keep_one_budget(result: FocusResult) -> None:
    variants = {f"{profile}{focus}" for profile in PROFILES for focus in ("", *(f", {w}" for w in _FOCUSES))}
    assert {row.variant for row in result.rows} == variants
    assert {row.budget for row in result.rows} == {int(BPP * 192 * 128 / 8)}
    assert all(0.9 * row.budget < row.scored.bytes <= row.budget for row in result.rows)
    assert result.heard == {"0.png": "A thing.", "1.png": "A thing."}


_FOCUSES = (PHRASE, OTHER, MASK)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_right_focus_betters_its_region_and_the_wrong_one_the_other(
    result: FocusResult, profile: str
) -> None:
    for image in ("0.png", "1.png"):
        by_variant = {row.variant: row.scored.scores for row in result.rows if row.image == image}
        plain, right, wrong = (by_variant[f"{profile}{w}"] for w in ("", f", {PHRASE}", f", {OTHER}"))
        assert right["psnr_inside"] > plain["psnr_inside"] > wrong["psnr_inside"]
        assert right["psnr_outside"] < plain["psnr_outside"] < wrong["psnr_outside"]


def test_found_words_are_told_with_the_control(result: FocusResult) -> None:
    assert [(placed.lift, placed.other_lift) for placed in result.placed] == [(2, 0), (2, 0)]
    assert result.lifts()[PHRASE].mean == 2
    page = result.markdown()
    assert f"| base, {MASK} | base |" in page
    assert f"- {OTHER}: 0.00 [0.00, 0.00]" in page
    assert json.loads(json.dumps(result.document()))["placed"][0]["area"] == 0.5


def test_words_that_tell_nothing_leave_their_photo_out(regions: list[FocusPhoto], lpips: Lpips) -> None:
    nowhere = FocusPhoto("2.png", "the sky", regions[0].picture, regions[0].mask)
    found = FocusResult()
    measure([nowhere, regions[0]], [BPP], Places(captioner=Sees()), lpips, found)
    assert found.rows == []
    assert [sentence.split(":")[0] for sentence in found.left_out] == ["2.png", "0.png"]
