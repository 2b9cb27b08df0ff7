# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP behind the interface of the joint space, on a tiny untrained model of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers")

from transformers import CLIPConfig, CLIPModel

from picogram.errors import ModelMissing
from picogram.semantics.features import preprocess
from picogram.semantics.joint import Joint, similarity
from picogram.semantics.joint_hub import ClipSpace, load_clip
from picogram_decoder.hub.blank import END, START, byte_tokenizer, byte_vocabulary

SIDE, PATCH = 32, 8


def tiny_clip(layers: int = 2) -> Any:
    torch.manual_seed(4)
    words = byte_vocabulary()
    common = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    ids = {"bos_token_id": words[START], "eos_token_id": words[END], "pad_token_id": words[END]}
    text = common | ids | {"num_hidden_layers": 2, "vocab_size": len(words)}
    vision = common | {"num_hidden_layers": layers, "image_size": SIDE, "patch_size": PATCH}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def space() -> ClipSpace:
    return ClipSpace(tiny_clip(), byte_tokenizer(), "tiny")


def test_it_is_a_joint_space_with_vectors_of_length_one(space: ClipSpace, photos: list[Image.Image]) -> None:
    joint: Joint = space
    assert joint.scale > 1
    for vectors in (joint.image(photos), joint.text(["a dog", ""]), joint.image_map(photos[0]).flatten(0, 1)):
        assert vectors.shape[1] == 12
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert joint.image_map(photos[0]).shape == (7, 7, 12)
    assert joint.image([]).shape == joint.text([]).shape == (0, 12)


def test_scores_are_those_of_the_model_itself(space: ClipSpace, photos: list[Image.Image]) -> None:
    captions = ["a dog runs", "a boat"]
    pixels = torch.stack([preprocess(photo, (SIDE, SIDE)) for photo in photos])
    mean, deviation = torch.tensor([0.4815, 0.4578, 0.4082]), torch.tensor([0.2686, 0.2613, 0.2758])
    inputs = byte_tokenizer()(captions, padding=True, return_tensors="pt")
    expected = space.model(pixel_values=(pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1), **inputs)
    found = space.scale * similarity(space.image(photos), space.text(captions))
    torch.testing.assert_close(found, expected.logits_per_image, rtol=1e-3, atol=1e-3)


def test_captions_do_not_reach_each_other_and_are_cut(space: ClipSpace) -> None:
    captions = ["a dog", "", "z" * 500] * 7  # more than a batch
    together = space.text(captions)
    torch.testing.assert_close(together[:3], torch.cat([space.text([c]) for c in captions[:3]]))
    torch.testing.assert_close(together[:3], together[-3:])


def test_special_tokens_in_a_caption_are_text(space: ClipSpace) -> None:
    found = space.text([f"a {END} dog", "a"])
    assert similarity(found[0], found[1:]) < 0.9999


def test_gradients_reach_pixels_of_any_size(space: ClipSpace) -> None:
    pixels = torch.rand(2, 3, 50, 40, generator=torch.Generator().manual_seed(2)).requires_grad_()
    space.pixels(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0


def test_the_last_layer_does_not_mix_the_cells_of_a_map(photo: Image.Image) -> None:
    one_layer = ClipSpace(tiny_clip(layers=1), byte_tokenizer())
    picture = photo.resize((4 * PATCH, 4 * PATCH))
    other = picture.copy()
    other.paste((255, 0, 0), (2 * PATCH, 0, 4 * PATCH, 4 * PATCH))
    before, after = one_layer.image_map(picture, 4), one_layer.image_map(other, 4)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_a_folder_holds_the_model(space: ClipSpace, tmp_path: Path, photos: list[Image.Image]) -> None:
    space.model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    read = load_clip(str(tmp_path))
    torch.testing.assert_close(read.image(photos), space.image(photos))
    torch.testing.assert_close(read.text(["a dog"]), space.text(["a dog"]))


def test_a_model_that_cannot_be_had_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="nothing"):
        load_clip(str(tmp_path / "nothing"))
