# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and captions in one space: random heads, and the shipped ones where the networks have been pulled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import byte_lm
import pytest
import torch
from joint_parts import CONFIG, Colours, heads
from PIL import Image
from safetensors.torch import load_file, save_file

from picogram.errors import ModelDamaged, ModelMissing
from picogram.semantics.features import preprocess
from picogram.semantics.joint import (
    MAX_WORDS,
    JointSpace,
    first_layers,
    load_joint,
    read_heads,
    similarity,
)
from picogram.text.lm.exact_lm import Cache
from training.diffusion.export import pack

CAPTIONS = ["a dog runs", "", "two men in a boat on a lake", "a"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> JointSpace:
    tokens = byte_lm.tokens(tmp_path_factory.mktemp("joint"))
    return JointSpace(Colours(), byte_lm.model(), tokens, heads(), "tiny")


def plain(colour: str, size: tuple[int, int] = (224, 224)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_all_vectors_have_length_one(space: JointSpace, photos: list[Image.Image]) -> None:
    for vectors in (space.image(photos), space.text(CAPTIONS), space.image_map(photos[0]).flatten(0, 1)):
        assert vectors.shape[1] == CONFIG.width
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_nothing_gives_no_vectors(space: JointSpace) -> None:
    assert space.image([]).shape == (0, CONFIG.width)
    assert space.text([]).shape == (0, CONFIG.width)


def test_captions_do_not_reach_each_other_and_keep_their_order(space: JointSpace) -> None:
    together = space.text(CAPTIONS * 5)  # more than a batch
    alone = torch.cat([space.text([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(together, alone.repeat(5, 1))
    assert similarity(alone, alone).triu(1).max() < 0.9999


def test_pictures_do_not_reach_each_other(space: JointSpace, photos: list[Image.Image]) -> None:
    together = space.image(photos * 5)
    alone = torch.cat([space.image([photo]) for photo in photos])
    torch.testing.assert_close(together, alone.repeat(5, 1))


def test_long_captions_are_cut(space: JointSpace) -> None:
    whole, cut = space.text(["x" * 5000, "x" * (MAX_WORDS - 1)])  # the space in front is a token, too
    torch.testing.assert_close(whole, cut)


def test_only_the_first_layers_of_the_language_model_are_asked() -> None:
    model = byte_lm.model()
    x = model.embed(torch.tensor([[0, 40, 41, 42]]))

    def states(part: int) -> torch.Tensor:
        cut = first_layers(model, part)
        return cut.forward(x, Cache(cut.config, 1, 4))

    assert torch.equal(states(2), model.forward(x, Cache(model.config, 1, 4)))
    assert not torch.equal(states(1), states(2))
    assert torch.equal(states(0), x)
    assert len(model.layers) == model.config.layers == 2


def test_pixels_and_pictures_agree_and_gradients_reach_pixels_only(
    space: JointSpace, photo: Image.Image
) -> None:
    pixels = preprocess(photo)[None].requires_grad_()
    found = space.pixels(pixels)
    torch.testing.assert_close(found.detach(), space.image([photo]))
    similarity(found, space.text(["a dog"])).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in space.heads.parameters())


def test_pixels_of_any_size_are_seen_whole(space: JointSpace) -> None:
    small = torch.rand(2, 3, 40, 90, generator=torch.Generator().manual_seed(1))
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert similarity(space.pixels(small), space.pixels(large)).diagonal().min() > 0.999


def test_a_map_says_what_is_where(space: JointSpace) -> None:
    both = plain("red", (300, 200))
    both.paste(plain("blue", (150, 200)), (150, 0))
    found, red, blue = (space.image_map(p, 8) for p in (both, plain("red"), plain("blue")))
    assert found.shape == (8, 8, CONFIG.width)
    torch.testing.assert_close(found[:, :2], red[:, :2])
    torch.testing.assert_close(found[:, 6:], blue[:, 6:])
    assert similarity(red[0, 0], blue[0, :1]) < 0.999


def test_dropout_is_for_training_only(space: JointSpace) -> None:
    made = heads()
    made.dropout = 0.5
    pooled, cells = torch.rand(2, CONFIG.image_width), torch.rand(2, 4, CONFIG.image_width)
    still = [made.eval().image(pooled, cells)[0] for _ in range(2)]
    moved = [made.train().image(pooled, cells)[0] for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moved)


def test_padding_leaves_no_trace() -> None:
    made = heads().eval()
    states = torch.randn(1, 3, CONFIG.text_width)
    mask = torch.ones(1, 3, dtype=torch.bool)
    padded = torch.cat((states, torch.full((1, 4, CONFIG.text_width), 50.0)), 1)
    more = torch.cat((mask, torch.zeros(1, 4, dtype=torch.bool)), 1)
    torch.testing.assert_close(made.text(padded, more), made.text(states, mask))


def test_calibration_makes_channels_comparable() -> None:
    made = heads()
    states = torch.randn(500, CONFIG.text_width) * torch.logspace(-1, 2, CONFIG.text_width) + 30
    made.calibrate(states)
    seen = (states - made.text_offset) * made.text_factor
    assert seen.std(0).sub(1).abs().max() < 0.01
    assert seen.mean(0).abs().max() < 0.3


def test_stored_heads_come_back_and_others_are_refused(tmp_path: Path) -> None:
    made = heads().eval()
    path = tmp_path / "heads.safetensors"
    save_file(pack(made.state_dict()), path)
    read = read_heads(path, CONFIG).eval()
    states, mask = torch.randn(2, 5, CONFIG.text_width), torch.ones(2, 5, dtype=torch.bool)
    assert similarity(made.text(states, mask), read.text(states, mask)).diagonal().min() > 0.999
    with pytest.raises(ModelDamaged, match=r"heads\.safetensors"):
        read_heads(path, replace(CONFIG, width=8))
    tensors = load_file(path)
    del tensors["whole.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelDamaged):
        read_heads(path, CONFIG)


# the shipped heads


@pytest.fixture(scope="module")
def shipped() -> JointSpace:
    try:
        return load_joint()
    except ModelMissing as error:
        if "models pull" not in str(error):
            raise  # the heads are in the package
        pytest.skip("the language model or the image features have not been pulled")


@pytest.mark.lmm
def test_shipped_heads_find_the_caption_of_each_photo(shipped: JointSpace, photos: list[Image.Image]) -> None:
    woman, cat, _, rocket = photos
    captions = [
        "A smiling woman wears an orange suit.",
        "A close-up of a cat with green eyes.",
        "A tall tower with lights against the dark sky.",
        "Two dogs run on the beach.",
    ]
    scores = similarity(shipped.image([woman, cat, rocket]), shipped.text(captions))
    assert scores.argmax(1).tolist() == [0, 1, 2]


@pytest.mark.lmm
def test_shipped_maps_say_where_things_are(shipped: JointSpace, photos: list[Image.Image]) -> None:
    woman, cat = (photo.resize((224, 224)) for photo in photos[:2])
    both = Image.new("RGB", (448, 224))
    both.paste(woman, (0, 0))
    both.paste(cat, (224, 0))
    scores = similarity(shipped.image_map(both, 8), shipped.text(["a smiling woman", "a cat"]))
    columns = scores.flatten(0, 1).argmax(0) % 8
    assert columns[0] < 4 <= columns[1]
