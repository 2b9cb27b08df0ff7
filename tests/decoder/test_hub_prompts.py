# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Any text is a prompt, and only a text."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from picogram_decoder.hub.blank import blank_parts
from picogram_decoder.hub.hub_models import MODELS
from picogram_decoder.hub.parts import Parts
from picogram_decoder.hub.prompts import LONGEST, clean, read_prompts


@pytest.fixture(scope="module")
def parts() -> Parts:
    return blank_parts(MODELS["sd21"], tiny=True)


def test_words_are_the_tokens_between_start_and_end(parts: Parts) -> None:
    words = read_prompts(parts, ["cat", "", "a" * 5]).words
    assert words.shape == (3, 77)
    assert words.sum(1).tolist() == [3, 0, 5]
    assert words[0].nonzero().flatten().tolist() == [1, 2, 3]


def test_long_prompts_are_cut(parts: Parts) -> None:
    texts = read_prompts(parts, ["x" * 1_000_000, "x" * 76])
    assert texts.words.sum(1).tolist() == [75, 75]
    assert torch.equal(texts.hidden[0], texts.hidden[1])
    assert len(clean("ab " * LONGEST)) == LONGEST


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>"])
def test_special_tokens_in_a_prompt_are_text(parts: Parts, special: str) -> None:
    words = read_prompts(parts, [f"a {special} b"]).words
    assert words.sum() == 2 + len(special)


@pytest.mark.parametrize(
    "prompt", ["\0", "a\x1b[2Jb", "\ud800", "(cat:1.5) [dog] <lora:x:1> BREAK", "\u202e", "%s{0}"]
)
def test_hostile_prompts_are_read(parts: Parts, prompt: str) -> None:
    hidden = read_prompts(parts, [prompt]).hidden
    assert hidden.isfinite().all()


def test_control_characters_do_not_count(parts: Parts) -> None:
    texts = read_prompts(parts, ["a\0 \x07cat\n\n", "a cat"])
    assert torch.equal(texts.hidden[0], texts.hidden[1])


def test_prompts_do_not_reach_each_other(parts: Parts) -> None:
    alone = read_prompts(parts, ["a cat"]).hidden
    among = read_prompts(parts, ["dogs " * 50, "a cat", ""]).hidden
    torch.testing.assert_close(among[1:2], alone)


def test_two_encoders_give_a_vector_of_the_whole_prompt() -> None:
    texts = read_prompts(blank_parts(MODELS["sdxl-turbo"], tiny=True), ["a cat", "a dog"])
    assert texts.hidden.shape == (2, 77, 32)
    assert texts.whole is not None
    assert texts.whole.shape == (2, 16)
    assert not torch.equal(texts.whole[0], texts.whole[1])
