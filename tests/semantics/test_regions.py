# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Image features, objects with masks, and the description of a photograph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from skimage import data
from torch import Tensor

from picogram.errors import CorruptBitstream, ModelDamaged, ModelMissing, UsageError
from picogram.models.store import features_file
from picogram.semantics import regions
from picogram.semantics.description import (
    MASK_SIDES,
    MAX_CAPTION_CHARACTERS,
    MAX_DETAIL_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_OBJECTS,
    Description,
    Region,
    objects_text,
    parse_objects_text,
    printable,
)
from picogram.semantics.features import CHANNELS, CLASSES, FeatureNet, Features, preprocess
from picogram.semantics.regions import MASK_SIDE, class_names, find_regions, locate

# Output channels, expansion, kernel, stride of the sixteen blocks, as published.
BLOCKS = (
    (16, 1, 3, 1), (24, 6, 3, 2), (24, 6, 3, 1), (40, 6, 5, 2), (40, 6, 5, 1), (80, 6, 3, 2), (80, 6, 3, 1),
    (80, 6, 3, 1), (112, 6, 5, 1), (112, 6, 5, 1), (112, 6, 5, 1), (192, 6, 5, 2), (192, 6, 5, 1), (192, 6, 5, 1),
    (192, 6, 5, 1), (320, 6, 3, 1),
)  # fmt: skip


def convolutions() -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """Names of each convolution and its norm, and the shape of its weight."""
    layers = [("_conv_stem", "_bn0", (32, 3, 3, 3))]
    width = 32
    for index, (out, expansion, kernel, _) in enumerate(BLOCKS):
        prefix, inner = f"_blocks.{index}.", width * expansion
        if expansion > 1:
            layers.append((f"{prefix}_expand_conv", f"{prefix}_bn0", (inner, width, 1, 1)))
        layers.append((f"{prefix}_depthwise_conv", f"{prefix}_bn1", (inner, 1, kernel, kernel)))
        layers.append((f"{prefix}_project_conv", f"{prefix}_bn2", (out, inner, 1, 1)))
        width = out
    return [*layers, ("_conv_head", "_bn1", (CHANNELS, width, 1, 1))]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """A state dict of the published shapes with random numbers of a plausible size."""
    rng = torch.Generator().manual_seed(5)
    made: dict[str, Tensor] = {}
    for name, norm, shape in convolutions():
        fan_in = shape[1] * shape[2] * shape[3]
        made[f"{name}.weight"] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
        made[f"{norm}.weight"] = torch.rand(shape[0], generator=rng) + 0.5
        made[f"{norm}.bias"] = torch.randn(shape[0], generator=rng) * 0.2
        made[f"{norm}.running_mean"] = torch.randn(shape[0], generator=rng) * 0.2
        made[f"{norm}.running_var"] = torch.rand(shape[0], generator=rng) + 0.5
    made["_fc.weight"] = torch.randn(CLASSES, CHANNELS, generator=rng) * 0.05
    made["_fc.bias"] = torch.randn(CLASSES, generator=rng) * 0.1
    return made


@pytest.fixture(scope="module")
def net(tensors: dict[str, Tensor]) -> FeatureNet:
    return FeatureNet(tensors)


@pytest.fixture(scope="module")
def trained() -> FeatureNet:
    """The published weights, where they have been pulled."""
    try:
        return FeatureNet(load_file(features_file()))
    except ModelMissing:
        pytest.skip("the image features have not been pulled")


def reference_spatial(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The published forward written plainly: unfolded norms, padding by formula."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        weight = tensors[f"{name}.weight"]
        kernel, groups = weight.shape[2], x.shape[1] // weight.shape[1]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max(((side + stride - 1) // stride - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        mean, deviation, scale, shift = (
            tensors[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, deviation, scale, shift, eps=1e-3)
        return F.relu6(x) if active else x

    x = conv((pixels - 0.5) / 0.5, "_conv_stem", "_bn0", 2)
    for index, (out, expansion, _, stride) in enumerate(BLOCKS):
        prefix, start = f"_blocks.{index}.", x
        if expansion > 1:
            x = conv(x, f"{prefix}_expand_conv", f"{prefix}_bn0")
        x = conv(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
        x = conv(x, f"{prefix}_project_conv", f"{prefix}_bn2", active=False)
        if stride == 1 and start.shape[1] == out:
            x = x + start
    return conv(x, "_conv_head", "_bn1")


# Features


@pytest.mark.parametrize("size", [(64, 96), (75, 33), (1, 1)])
def test_folded_network_equals_the_published_one(
    net: FeatureNet, tensors: dict[str, Tensor], size: tuple[int, int]
) -> None:
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    features = net(pixels)
    spatial = reference_spatial(tensors, pixels)
    assert spatial.std() > 0.1
    torch.testing.assert_close(features.spatial, spatial, rtol=1e-3, atol=1e-3)
    pooled = spatial.mean((2, 3))
    logits = pooled @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    torch.testing.assert_close(features.pooled, pooled, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features.logits, logits, rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_pixels_but_not_the_weights(net: FeatureNet) -> None:
    pixels = torch.full((1, 3, 32, 32), 0.4, requires_grad=True)
    net(pixels).logits.square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert not any(True for _ in net.parameters())


def test_missing_or_misshapen_weights_are_named(tensors: dict[str, Tensor]) -> None:
    fewer = {name: t for name, t in tensors.items() if name != "_blocks.3._bn1.running_var"}
    with pytest.raises(ModelDamaged, match=r"_blocks\.3\._bn1\.running_var"):
        FeatureNet(fewer)
    with pytest.raises(ModelDamaged, match=r"_fc\.weight"):
        FeatureNet(tensors | {"_fc.weight": torch.zeros(10, CHANNELS)})


def test_preprocessing_squashes_any_aspect(photo: Image.Image) -> None:
    for image in (photo, photo.resize((300, 20)), photo.resize((1, 5))):
        pixels = preprocess(image)
        assert pixels.shape == (3, 224, 224)
        assert 0 <= pixels.min() <= pixels.max() <= 1
    assert preprocess(photo, (96, 64)).shape == (3, 64, 96)
    white = preprocess(Image.new("RGB", (3, 3), "white"))
    assert torch.equal(white, torch.ones(3, 224, 224))


def test_tokens_are_means_over_windows_row_by_row() -> None:
    spatial = torch.arange(49.0).reshape(1, 1, 7, 7)
    tokens = Features(spatial, spatial.mean((2, 3)), torch.zeros(1, CLASSES)).tokens(3)
    windows = [spatial[0, 0, y : y + 3, x : x + 3].mean() for y in (0, 2, 4) for x in (0, 2, 4)]
    assert torch.allclose(tokens, torch.stack(windows).reshape(1, 9, 1))


# Objects


def spatial_of(places: dict[int, tuple[slice, slice]]) -> tuple[Tensor, Tensor, Tensor]:
    """A 8x8 feature map and a classifier that sees each class in its place and no class elsewhere."""
    spatial = torch.zeros(CHANNELS, 8, 8)
    for number, place in places.items():
        spatial[(number, *place)] = 6.0
    return spatial, torch.eye(CLASSES, CHANNELS) * 40, torch.zeros(CLASSES)


def mask_of(rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
    mask = np.zeros((MASK_SIDE, MASK_SIDE), np.bool_)
    mask[rows, columns] = True
    return mask


def test_every_class_has_a_short_name_or_none() -> None:
    names = class_names()
    assert len(names) == CLASSES
    named = [name for name in names if name is not None]
    assert len(named) > 0.98 * CLASSES
    for name in set(named):
        Region(name, "", mask_of(slice(1), slice(1)))
        assert len(name.split()) <= 4
        assert "_" not in name


def test_class_names_stand_in_the_published_order() -> None:
    expected = {
        1: "goldfish", 150: "sea lion", 151: "dog", 268: "dog", 269: "wolf", 281: "cat", 285: "cat", 340: "zebra",
        386: "elephant", 404: "airplane", 444: "tandem bicycle", 508: "keyboard", 562: "fountain", 605: "music player",
        657: "rocket", 671: "bicycle", 701: "parachute", 744: "rocket", 779: "school bus", 859: "toaster",
        879: "umbrella", 920: "traffic light", 954: "banana", 963: "pizza", 967: "espresso", 999: "toilet paper",
    }  # fmt: skip
    assert {number: class_names()[number] for number in expected} == expected
    assert class_names().count("dog") == 119


def test_objects_are_found_with_their_masks_surest_first() -> None:
    left, right = (slice(0, 8), slice(0, 4)), (slice(2, 6), slice(5, 8))
    found = locate(*spatial_of({340: left, 954: right}))
    assert [name for name, _ in found] == ["zebra", "banana"]
    assert np.array_equal(found[0][1], mask_of(*left))
    assert np.array_equal(found[1][1], mask_of(*right))
    assert locate(*spatial_of({340: left, 954: right}), limit=1)[0][0] == "zebra"


def pooled(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask of side 8: the cells of which a finer one covers half."""
    part = len(mask) // 8
    covered: npt.NDArray[np.bool_] = mask.reshape(8, part, 8, part).mean((1, 3)) >= 0.5
    return covered


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("side", MASK_SIDES[1:])
def test_finer_masks_lie_where_coarse_ones_do(side: int) -> None:
    left, right = (slice(0, 8), slice(0, 4)), (slice(2, 6), slice(5, 8))
    coarse = locate(*spatial_of({340: left, 954: right}))
    fine = locate(*spatial_of({340: left, 954: right}), side=side)
    assert [name for name, _ in fine] == [name for name, _ in coarse]
    for (_, mask), (_, expected) in zip(fine, coarse, strict=True):
        assert mask.shape == (side, side)
        assert overlap(pooled(mask), expected) > 0.9


def test_classes_of_one_name_count_together() -> None:
    spatial, weight, bias = spatial_of({340: (slice(0, 8), slice(0, 8))})
    weight[340] /= 40
    breeds = torch.zeros(CLASSES)
    breeds[160:180] = 1.0
    weight[:, 340] += breeds * 1.2  # each breed as likely as the zebra, all together far likelier
    found = locate(spatial, weight, bias)
    assert [name for name, _ in found] == ["dog"]


def test_doubtful_and_nameless_classes_are_left_out() -> None:
    everywhere = (slice(0, 8), slice(0, 8))
    assert locate(torch.zeros(CHANNELS, 8, 8), *spatial_of({})[1:]) == []
    nameless = class_names().index(None)
    assert locate(*spatial_of({nameless: everywhere})) == []


def test_the_same_kind_of_thing_is_not_named_twice() -> None:
    top, bottom = (slice(0, 4), slice(0, 8)), (slice(4, 8), slice(0, 8))
    assert [class_names()[n] for n in (751, 817)] == ["race car", "sports car"]
    assert len(locate(*spatial_of({751: top, 817: bottom}))) == 1
    assert len(locate(*spatial_of({751: top, 340: bottom}))) == 2


def test_masks_that_lie_on_a_better_one_are_dropped() -> None:
    found = [("zebra", mask_of(slice(0, 4), slice(0, 8)))]
    assert not regions._is_new("banana", mask_of(slice(0, 3), slice(0, 3)), found)
    assert regions._is_new("banana", mask_of(slice(2, 6), slice(0, 3)), found)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (640, 480)])
def test_pictures_of_any_shape_are_searched(net: FeatureNet, size: tuple[int, int]) -> None:
    for region in find_regions(net, Image.new("RGB", size, "red")):
        assert region.mask.shape == (MASK_SIDE, MASK_SIDE)


def test_details_come_from_the_hook(monkeypatch: pytest.MonkeyPatch, net: FeatureNet) -> None:
    mask = mask_of(slice(0, 2), slice(0, 3))
    monkeypatch.setattr(regions, "locate", lambda *_: [("zebra", mask)])
    photo = Image.new("RGB", (40, 30))
    [region] = find_regions(net, photo, describe=lambda image, name, at: f"{name} {at.sum()} {image.width}")
    assert region == Region("zebra", "zebra 6 40", mask)
    assert find_regions(net, photo)[0].detail == ""


@pytest.mark.parametrize(("picture", "name"), [("chelsea", "cat"), ("coffee", "espresso")])
def test_trained_network_names_known_photographs(trained: FeatureNet, picture: str, name: str) -> None:
    [region] = find_regions(trained, Image.fromarray(getattr(data, picture)()))
    assert region.name == name
    assert 0.05 < region.mask.mean() < 0.9
    [fine] = find_regions(trained, Image.fromarray(getattr(data, picture)()), side=16)
    assert (fine.name, fine.mask.shape) == (name, (16, 16))
    assert overlap(pooled(fine.mask), region.mask) > 0.7
    edges = np.abs(np.diff(fine.mask, axis=0)).sum() + np.abs(np.diff(fine.mask, axis=1)).sum()
    assert edges < 80  # one smooth shape


# Description

PHRASE = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters=":;"), max_size=20
).map(str.strip)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(PHRASE.filter(bool), PHRASE, st.sampled_from(MASK_SIDES)), max_size=MAX_OBJECTS))
def test_objects_text_round_trips(parts: list[tuple[str, str, int]]) -> None:
    rng = np.random.default_rng(len(parts))
    made = tuple(Region(name, detail, rng.random((side, side)) < 0.5) for name, detail, side in parts)
    text = objects_text(made)
    assert len(text.splitlines()) <= 1
    assert parse_objects_text(text, [region.mask for region in made]) == made


def test_objects_text_reads_like_a_line() -> None:
    mask = np.zeros((8, 8), np.bool_)
    made = (Region("dog", "black: and wet", mask), Region("ball", "", mask))
    assert objects_text(made) == "dog: black: and wet; ball"
    assert parse_objects_text("dog: black: and wet; ball", [mask, mask]) == made
    assert objects_text(()) == ""
    assert parse_objects_text("", []) == ()


@pytest.mark.parametrize(
    "text", ["dog", "dog; ; ball", "dog: ; cat", "dog:a; cat", "dog; a\nb", "; dog", "dog;cat; b"]
)
def test_damaged_objects_text_is_refused(text: str) -> None:
    with pytest.raises(CorruptBitstream):
        parse_objects_text(text, [np.zeros((8, 8), np.bool_)] * 2)


@pytest.mark.parametrize(
    ("name", "detail"),
    [("", ""), ("a;b", ""), ("a:b", ""), ("a", "b;c"), ("a\n", ""), ("a", "\x1b[0m"), (" a", ""), ("a", "b "),
     ("a\u2028b", ""), ("\ud800", ""), ("a", "\udfff"), ("a" * (MAX_NAME_CHARACTERS + 1), ""),
     ("a", "b" * (MAX_DETAIL_CHARACTERS + 1))],
)  # fmt: skip
def test_names_and_details_that_would_not_round_trip_are_refused(name: str, detail: str) -> None:
    with pytest.raises(UsageError):
        Region(name, detail, np.zeros((8, 8), np.bool_))


@pytest.mark.parametrize(
    "mask",
    [np.zeros((8, 16), np.bool_), np.zeros((7, 7), np.bool_), np.zeros((8, 8), np.uint8),
     np.zeros((8, 8, 1), np.bool_), np.zeros((0, 0), np.bool_), np.zeros((128, 128), np.bool_)],
)  # fmt: skip
def test_other_masks_are_refused(mask: npt.NDArray[np.bool_]) -> None:
    with pytest.raises(UsageError, match="mask"):
        Region("dog", "", mask)


def test_a_region_keeps_its_own_mask() -> None:
    mask = np.zeros((8, 8), np.bool_)
    region = Region("dog", "", mask)
    mask[0, 0] = True
    assert not region.mask.any()
    assert region != Region("dog", "", mask)
    assert len({region, Region("dog", "", region.mask)}) == 1
    with pytest.raises(ValueError, match="read-only"):
        region.mask[0, 0] = True


def test_captions_may_hold_any_text_within_the_limit() -> None:
    for caption in ("", "line\nbreak \x00 \x1b[31m", "\u202ertl", "👩‍👩‍👧", "x" * MAX_CAPTION_CHARACTERS):
        assert Description(caption).caption == caption
    with pytest.raises(UsageError, match="10,001"):
        Description("x" * (MAX_CAPTION_CHARACTERS + 1))
    with pytest.raises(UsageError, match="surrogate"):
        Description("half \ud83d")


def test_more_objects_than_a_file_holds_are_refused() -> None:
    region = Region("dog", "", np.zeros((8, 8), np.bool_))
    assert len(Description("", (region,) * MAX_OBJECTS).objects) == MAX_OBJECTS
    with pytest.raises(UsageError, match="9 objects"):
        Description("", (region,) * (MAX_OBJECTS + 1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a dog", "a dog"), ("Größe 犬 שלום", "Größe 犬 שלום"), ("👩‍🚀", "👩‍🚀"),
     ("a\nb\tc", r"a\nb\tc"), ("\x1b[31m", r"\x1b[31m"),
     ("\x9b", r"\x9b"), ("\u202eabc\u2066", r"\u202eabc\u2066"), ("a\u2029", r"a\u2029"), ("\ufeff", r"\ufeff"),
     ("\U000e0041", r"\U000e0041"), ("\ud800", r"\ud800"), ("a\\n", r"a\\n")],
)  # fmt: skip
def test_printable_shows_what_would_harm_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text(st.characters(codec="utf-8"), max_size=30))
def test_printable_is_one_line_and_tells_texts_apart(first: str, second: str) -> None:
    assert len(printable(first).splitlines()) <= 1
    assert (printable(first) == printable(second)) == (first == second)
