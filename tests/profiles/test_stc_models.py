# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files with words by the real models; skipped where they have not been pulled."""

from __future__ import annotations

import pytest
from PIL import Image

import picogram
from picogram.bitstream import Header, Picogram, Profile, parse
from picogram.errors import ModelMissing
from picogram.models import DEFAULT_LATENT
from picogram.semantics.words import Words, default_words
from picogram.text.coder import TextCoder

CAPTION = "Three men repair the roof of a wooden house near the harbour."
ONLY_STATIC = Words(TextCoder())

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words() -> Words:
    found = default_words()
    (sections,) = found.code([picogram.Description(CAPTION)])
    if sections.warnings:
        pytest.skip("the language model has not been pulled")
    return found


def test_the_language_model_writes_captions_in_fewer_bytes(photo: Image.Image, words: Words) -> None:
    encoded = picogram.encode_detailed(photo, bytes=250, profile="stc", caption=CAPTION, words=words)
    (plain,) = ONLY_STATIC.code([picogram.Description(CAPTION)])
    assert len(encoded.data) <= 250
    assert encoded.coders["caption"].startswith("exact-lm")
    assert len(parse(encoded.data).optional["caption"]) < len(plain.optional["caption"])
    decoded = picogram.decode_detailed(encoded.data, words=words)
    assert (decoded.description, decoded.warnings) == (picogram.Description(CAPTION), ())


def test_its_captions_need_it_and_the_picture_does_not(photo: Image.Image, words: Words) -> None:
    data = picogram.encode(photo, bytes=250, profile="stc", caption=CAPTION, words=words)
    decoded = picogram.decode_detailed(data, words=ONLY_STATIC)
    assert decoded.description is None
    assert "picogram models pull text" in decoded.warnings[0]
    assert decoded.picture.size == photo.size


def test_noise_for_a_caption_is_a_warning_or_nonsense_never_a_failure(words: Words) -> None:
    header = Header(Profile.STC, 64, 48, DEFAULT_LATENT)
    noise = [bytes([7 * n % 200, 31 * n % 256, 99, n]) for n in range(8)]
    read = words.read([Picogram(header, b"\x80", {"caption": section}) for section in noise])
    assert all((r.description is None) == bool(r.warnings) for r in read)


def test_the_captioner_describes_photographs(photos: list[Image.Image], words: Words) -> None:
    try:
        described = words.describe(photos[1:2])
    except ModelMissing:
        pytest.skip("the captioner has not been pulled")
    assert "cat" in described[0].caption.lower()
