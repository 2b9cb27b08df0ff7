# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Results: the same facts wherever the work was done, and back from them; every byte of a file is accounted for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from captioners import CAPTION, Says
from hearing_words import HearingWords
from PIL import Image

import picogram
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.errors import CorruptBitstream, ImageError, UsageError
from picogram.images import read_image, write_image
from picogram.results import Decoded, Drawing, Encoded, ImageFile
from picogram.semantics.description import Description, Region
from picogram.semantics.words import Words

LONG = "Bär " * 1500
WORDS = Description("Ein Bär.\n\u202e", (Region("dog", "wet", np.eye(8, dtype=np.bool_)),))
PROFILES = {
    "base": {"latent"},
    "stc": {"latent", "caption"},
    "misc": {"latent", "caption", "objects"},
    "taco": {"latent"},
    "sedic": {"latent", "caption", "objects"},
}


class Sees(Says):
    """A dog, in masks of the side that is asked for."""

    def describe(self, pictures: Any, objects: bool = True, side: int = 8) -> list[Description]:
        dog = Region("dog", "wet", np.eye(side, dtype=np.bool_))
        return [Description(CAPTION, (dog,) if objects else ())] * len(pictures)


@pytest.fixture(scope="module")
def words() -> Words:
    return HearingWords(Sees(CAPTION))


def travelled(facts: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(facts, allow_nan=False))
    return plain


@pytest.mark.parametrize("profile", PROFILES)
def test_an_encoded_file_comes_back_from_its_facts(photo: Image.Image, words: Words, profile: str) -> None:
    encoded = picogram.encode_detailed(photo, quality=5, profile=profile, words=words)
    facts = travelled(encoded.facts())
    back = Encoded.of(encoded.data, facts, warnings=encoded.warnings)
    assert back == encoded
    assert back.facts() == encoded.facts() == facts
    assert set(encoded.sections) == PROFILES[profile] | {"header"}
    assert sum(encoded.sections.values()) == len(encoded.data) == facts["bytes"]
    assert (facts["width"], facts["height"]) == (encoded.width, encoded.height) == photo.size
    assert facts["bpp"] == encoded.bpp == picogram.inspect(encoded.data, words=words).bpp
    assert facts["profile"] == profile
    assert encoded.coders.keys() == PROFILES[profile] - {"latent"}
    assert encoded.heard == (CAPTION if profile == "taco" else None)
    assert encoded.caption == (CAPTION if "caption" in PROFILES[profile] else None)


def test_sections_are_those_that_inspection_finds(photo: Image.Image, words: Words) -> None:
    encoded = picogram.encode_detailed(photo, quality=5, profile="misc", words=words)
    found = picogram.inspect(encoded.data, words=words)
    assert encoded.sections == {"header": found.header_bytes, **found.sections}


def test_facts_may_be_missing_and_wrong_ones_are_refused() -> None:
    file = serialise(Picogram(Header(Profile.STC, 8, 6, 1), b"\x80", {"caption": b"x"}))
    nothing = Encoded.of(file, {})
    assert (nothing.description, nothing.coders, nothing.heard, nothing.caption) == (None, {}, None, None)
    assert Encoded.of(file, {"description": None, "coders": None, "whatever": 3}) == nothing
    with pytest.raises(UsageError):
        Encoded.of(file, {"description": {"caption": "a", "objects": [{"name": 3}]}})
    with pytest.raises(CorruptBitstream):
        _ = Encoded(file[:-1]).bpp


def test_long_captions_are_whole(photo: Image.Image, words: Words) -> None:
    encoded = picogram.encode_detailed(photo, quality=5, profile="stc", caption=LONG, words=words)
    assert len(LONG.encode()) > 4096
    assert encoded.caption == Encoded.of(encoded.data, travelled(encoded.facts())).caption == LONG
    decoded = picogram.decode_detailed(encoded.data, steps=0, words=words)
    assert decoded.caption == Decoded.of(decoded.source, travelled(decoded.facts())).caption == LONG


# --- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("description", [None, Description(""), WORDS, Description(LONG)])
@pytest.mark.parametrize(
    "drawing", [Drawing(), Drawing(3, 2, 0.1, 2**32 - 1, "embedded"), Drawing(1, 1, None)]
)
def test_a_decoded_picture_comes_back_from_its_facts(
    description: Description | None, drawing: Drawing
) -> None:
    decoded = Decoded(Image.new("RGB", (9, 7)), description, drawing, ("odd",), {"run": 0.5}, "id")
    facts = travelled(decoded.facts())
    more: dict[str, Any] = {"warnings": ("odd",), "timings": {"run": 0.5}, "job": "id"}
    back = Decoded.of(decoded.source, facts, **more)
    assert vars(back) == vars(decoded)
    assert back.facts() == decoded.facts() == facts
    assert (facts["width"], facts["height"]) == decoded.size == (9, 7)
    assert decoded.caption == (description.caption if description else None)


def test_facts_of_newer_servers_are_passed_over() -> None:
    picture = Image.new("RGB", (9, 7))
    assert Decoded.of(picture, {}).drawing == Drawing()
    drawn = {**Drawing(2, 3, 1.5, 4, "m").facts(), "mood": "blue"}
    assert Decoded.of(picture, {"drawing": drawn, "rotated": True}).drawing == Drawing(2, 3, 1.5, 4, "m")
    with pytest.raises(UsageError):
        Decoded.of(picture, {"description": {"caption": "half \ud83d", "objects": []}})


def test_a_drawing_says_how_to_get_it_again(photo: Image.Image) -> None:
    data = picogram.encode(photo.resize((64, 64)), quality=5)
    first = picogram.decode_detailed(data, steps=2, seed=11)
    assert first.drawing == Drawing(1, 2, 1.0, 11, "embedded")
    how = first.drawing
    again = picogram.decode_detailed(data, steps=how.steps, guidance=how.guidance, seed=how.seed)
    assert again.picture.tobytes() == first.picture.tobytes()
    plain = picogram.decode_detailed(data, steps=0)
    assert (plain.drawing.stages, plain.drawing.steps, plain.drawing.guidance) == (0, 0, None)


def test_a_servers_file_is_kept_as_it_came_and_read_when_asked_for(photo: Image.Image) -> None:
    sent = write_image(photo, "image/webp")
    decoded = Decoded(ImageFile(sent, "image/webp", photo.size))
    assert decoded.size == photo.size
    assert "picture" not in vars(decoded)
    assert decoded.image_file("image/webp") == sent
    assert "picture" not in vars(decoded)
    assert decoded.picture.tobytes() == read_image(sent).tobytes()
    assert read_image(decoded.image_file("image/png")).tobytes() == decoded.picture.tobytes()
    with pytest.raises(UsageError):
        decoded.image_file("image/tiff")
    broken = Decoded(ImageFile(b"odd", "image/png", (9, 7)))
    assert (broken.size, broken.image_file("image/png")) == ((9, 7), b"odd")
    with pytest.raises(ImageError):
        _ = broken.picture
