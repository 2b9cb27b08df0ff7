# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What models say is made fit for a file, or dropped."""

from __future__ import annotations

import numpy as np
import pytest

from picogram_lmm.cleaning import clean_caption, clean_detail, clean_name, loops
from picogram_lmm.prompts import question
from picogram_lmm.vllm_captioner import parse_objects, place_mask


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  A dog\n runs. ", "A dog runs."),
        ('"A dog runs."', "A dog runs."),
        ("Caption: A dog runs.", "A dog runs."),
        ("A\x00dog\u2028runs\x1b", "A dog runs"),
        ("Ein Hund läuft, 犬", "Ein Hund läuft, 犬"),
        ("", None),
        (" \n\t", None),
        ("... 12 !?", None),
        ("a dog a dog a dog", None),
    ],
)
def test_captions_are_one_clean_line_or_nothing(said: str, kept: str | None) -> None:
    assert clean_caption(said) == kept


def test_long_captions_end_with_a_sentence_or_a_word() -> None:
    sentences = "A red house stands on a hill. Behind it there are many trees and a lake with two boats"
    assert clean_caption(sentences, 60) == "A red house stands on a hill."
    assert clean_caption("one, two, three, four, five", 14) == "one, two"
    assert clean_caption("x" * 400, 300) == "x" * 300


def test_loops_are_found_and_prose_is_not() -> None:
    assert loops("the man is in the car, and " * 4)
    assert loops("yes yes yes")
    assert loops(" ".join(f"a red bus and word{i % 3}" for i in range(12)))
    assert not loops("A man in a blue shirt and a man in a red shirt talk to a man in a white shirt.")
    assert not loops("")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("1. The Dog", "dog"),
        ("- an old man", "old man"),
        ("* **umbrella**", "umbrella"),
        ("T-shirt", "t-shirt"),
        ("there are no objects here", None),
        ("???", None),
        ("", None),
        ("x" * 31, None),
    ],
)
def test_names_are_short_and_bare(said: str, kept: str | None) -> None:
    assert clean_name(said) == kept


def test_details_hold_no_separator() -> None:
    assert clean_detail("brown; wet fur.") == "brown, wet fur"
    assert clean_detail("no no no no") == ""


def test_objects_are_parsed_three_at_most_and_each_once() -> None:
    found = parse_objects("Dog; left\nI see:\n2) dog; right\nBall: bottom right\nTree - top\nHouse, center\n")
    assert [name for name, _ in found] == ["dog", "i see", "ball"]


def test_places_are_parts_of_the_picture() -> None:
    corner = place_mask("top left")
    assert corner[:3, :3].all()
    assert corner.sum() == 9
    for side in (16, 32, 64):
        finer = place_mask("top left", side)
        assert np.array_equal(finer, np.kron(corner, np.ones((side // 8, side // 8), np.bool_)))
    assert place_mask("somewhere").all()
    assert place_mask("in the center").sum() == 16
    assert np.array_equal(place_mask("left, right"), place_mask("right"))


def test_questions_are_data_with_versions() -> None:
    assert [question(n).id for n in ("caption", "objects", "detail")] == ["caption", "objects", "detail"]
    assert all(question(n).version >= 1 for n in ("caption", "objects", "detail"))
    assert "{name}" in question("detail").text
    with pytest.raises(ValueError, match="no prompt"):
        question("nothing")
