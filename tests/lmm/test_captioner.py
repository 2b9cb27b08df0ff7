# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny Idefics3 with random weights describes pictures: nonsense, but through the whole chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from picogram.errors import ModelError
from picogram.semantics.description import Description, Region

pytest.importorskip("vllm")

import tiny_hf

from picogram_lmm.prompts import Question, question
from picogram_lmm.vllm_captioner import VllmCaptioner

if TYPE_CHECKING:
    from collections.abc import Sequence

RED = Image.new("RGB", (90, 60), "red")
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 110, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> VllmCaptioner:
    folder = tiny_hf.write_idefics3(tmp_path_factory.mktemp("idefics3"))
    return VllmCaptioner(
        str(folder), max_model_len=512, max_num_seqs=8, kv_cache_memory_bytes=64 << 20, dtype="float32"
    )


def test_the_model_sees_the_picture(captioner: VllmCaptioner) -> None:
    asked = question("caption")
    first, other, again = captioner.ask([RED, NOISE, RED], [asked] * 3)
    assert first == again
    assert first != other
    assert first


def test_questions_reach_the_model(captioner: VllmCaptioner) -> None:
    short, long = captioner.ask(
        [NOISE, NOISE], [Question("q", 1, "What is it?", 3), Question("q", 1, "Where is it?", 40)]
    )
    assert len(short) < len(long)


def test_gray_pictures_and_other_shapes_are_described(captioner: VllmCaptioner) -> None:
    pictures = [RED.convert("L"), Image.new("RGB", (300, 20), "blue"), Image.new("RGB", (1, 1))]
    assert all(isinstance(d, Description) for d in captioner.describe(pictures))
    assert captioner.describe([]) == []


def test_answers_become_a_description(captioner: VllmCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(pictures: Sequence[Image.Image], questions: Sequence[Question]) -> list[str]:
        said = {
            "caption": ' Caption: "A dog on a lawn."\n',
            "objects": "1. Dog; left\n2. the lawn; bottom\n3. ???",
        }
        return [said.get(q.id, f"green; wet ({q.text.split()[2]}).") for q in questions]

    monkeypatch.setattr(captioner, "ask", answers)
    described = captioner.describe([RED])[0]
    assert described.caption == "A dog on a lawn."
    assert [(r.name, r.detail) for r in described.objects] == [
        ("dog", "green, wet (dog)"),
        ("lawn", "green, wet (lawn)"),
    ]
    left, bottom = (r.mask for r in described.objects)
    assert left[:, :3].all()
    assert not left[:, 3:].any()
    assert bottom[5:].all()
    assert not bottom[:5].any()
    assert isinstance(described.objects[0], Region)


def test_an_unusable_caption_leaves_nothing(
    captioner: VllmCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers(pictures: Sequence[Image.Image], questions: Sequence[Question]) -> list[str]:
        asked.extend(q.id for q in questions)
        return ["dog dog dog dog dog"] * len(questions)

    monkeypatch.setattr(captioner, "ask", answers)
    assert captioner.describe([RED]) == [Description()]
    assert asked == ["caption"]


def test_a_model_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        VllmCaptioner(str(tmp_path / "nothing"))
