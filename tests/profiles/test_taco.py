# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile taco: the encoder listens to a caption that is not in the file, and does without one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

import picogram
from picogram.bitstream import Profile, parse
from picogram.errors import ModelMissing, UsageError
from picogram.latent.codec import load_codec
from picogram.latent.focus import Focus
from picogram.pipeline.handovers import WordsToWrite
from picogram.pipeline.prepare import Hints, PreparedWords, States, prepare
from picogram.request import EncodeOptions
from picogram.results import Encoded
from picogram.semantics.description import Description
from picogram.semantics.words import Words

WIDTH = 576


class Ears(Words):
    """Hears something else in every caption; sees what it is told to, or fails."""

    def __init__(self, seen: str | Exception = "a woman in orange") -> None:
        super().__init__()
        self.seen = seen
        self.heard: list[str] = []

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        if isinstance(self.seen, Exception):
            raise self.seen
        return [Description(self.seen) for _ in pictures]

    def hear(self, captions: Sequence[str]) -> list[States]:
        self.heard += captions
        return [states_of(caption) for caption in captions]


def states_of(caption: str) -> States:
    random = np.random.default_rng(list(caption.encode()))
    return random.normal(scale=3, size=(len(caption.split()) + 1, WIDTH)).astype(np.float16)


def encoded(photo: Image.Image, ears: Ears, caption: str | None = None) -> Encoded:
    return picogram.encode_detailed(photo, bytes=500, profile="taco", caption=caption, words=ears)


def test_the_captioners_caption_shapes_the_file_and_is_not_in_it(photo: Image.Image) -> None:
    ears = Ears()
    found = encoded(photo, ears)
    file = parse(found.data)
    assert (file.header.profile, file.optional, found.warnings) == (Profile.TACO, {}, ())
    assert (found.heard, found.description, ears.heard) == ("a woman in orange", None, ["a woman in orange"])
    assert found.data != encoded(photo, ears, "").data


def test_the_callers_caption_comes_first(photo: Image.Image) -> None:
    ears = Ears()
    found = encoded(photo, ears, "an astronaut")
    assert (found.heard, ears.heard) == ("an astronaut", ["an astronaut"])
    assert found.data != encoded(photo, ears, "two dogs on a beach").data


@pytest.mark.parametrize("caption", ["", " \n"])
def test_an_empty_caption_is_no_caption_and_needs_no_models(photo: Image.Image, caption: str) -> None:
    ears = Ears(ModelMissing("run `picogram models pull all`"))
    found = encoded(photo, ears, caption)
    assert (found.heard, found.warnings, ears.heard) == (None, (), [])


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (ModelMissing("run `picogram models pull all`"), "run `picogram models pull all`"),
        (ValueError("no luck"), "the captioner failed (no luck)"),
        (" ", "the captioner found no words"),
    ],
)
def test_without_a_captioners_words_the_picture_alone_is_coded_with_a_warning(
    photo: Image.Image, seen: str | Exception, told: str
) -> None:
    ears = Ears(seen)
    found = encoded(photo, ears)
    assert found.warnings == (f"{told}: coded from the picture alone",)
    assert found.data == encoded(photo, ears, "").data


def test_pictures_of_a_batch_hear_their_own_captions(photos: list[Image.Image]) -> None:
    captions = ["one", "", None, "four words of it"]
    asked = [EncodeOptions(profile="taco", caption=caption) for caption in captions]
    prepared = prepare(photos, asked, Ears())
    assert [each.hints.heard for each in prepared] == ["one", None, "a woman in orange", "four words of it"]
    for each in prepared:
        expected = None if each.hints.heard is None else states_of(each.hints.heard)
        np.testing.assert_array_equal(each.hints.states, expected)


def test_its_files_name_the_model_that_reads_them(photo: Image.Image) -> None:
    header = parse(encoded(photo, Ears()).data).header
    assert load_codec(header.model).net.adapter is not None


def test_its_pictures_are_drawn_without_words(photo: Image.Image) -> None:
    data = encoded(photo, Ears()).data
    plain, drawn = (np.asarray(picogram.decode(data, steps=steps)) for steps in (0, 1))
    assert np.array_equal(drawn, np.asarray(picogram.decode(data)))
    assert not np.array_equal(plain, drawn)


@pytest.mark.parametrize("profile", ["base", "stc", "misc", "sedic"])
def test_without_a_caption_its_latent_is_that_of_any_profile(photo: Image.Image, profile: str) -> None:
    taco = parse(picogram.encode(photo, quality=30, profile="taco", caption=""))
    words = None if profile == "base" else "an astronaut"
    other = parse(picogram.encode(photo, quality=30, profile=profile, caption=words, objects=()))
    assert (other.header.model, other.latent) == (taco.header.model, taco.latent)


def test_objects_have_no_place_in_it(photo: Image.Image) -> None:
    with pytest.raises(UsageError, match="carries no objects"):
        picogram.encode(photo, profile="taco", objects=[picogram.Region("dog", "", np.ones((8, 8), bool))])


def travelled(hints: Hints) -> Hints:
    facts = WordsToWrite(PreparedWords(hints=hints)).facts()
    back = WordsToWrite.of(json.loads(json.dumps(facts)))
    assert back is not None
    return back.prepared.hints


def test_hints_travel_bit_for_bit() -> None:
    weights = np.random.default_rng(1).random((5, 7)).astype(np.float32)
    hints = Hints("a dog", states_of("a dog"), Focus.of(weights))
    back = travelled(hints)
    assert back.heard == "a dog"
    np.testing.assert_array_equal(back.states, hints.states)
    assert back.focus is not None
    np.testing.assert_array_equal(back.focus.weights, weights)
    assert travelled(Hints()) == Hints()
