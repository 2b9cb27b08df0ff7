# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files with words: captions kept and paid for, damage contained, and nothing that the words do stops the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captioners import CAPTION, Fails, Says
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import picogram
from picogram.api import assemble, prepare
from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.errors import (
    BudgetTooSmall,
    CorruptBitstream,
    ModelMissing,
    SelfCheckFailed,
    UnsupportedProfile,
    UsageError,
)
from picogram.models import DEFAULT_LATENT
from picogram.pipeline.assemble import MAX_WORDS_SHARE
from picogram.pipeline.prepare import PreparedWords, WordsVariant
from picogram.profiles.registry import PROFILES, profile_named, profile_of
from picogram.request import EncodeOptions
from picogram.semantics.description import Description, Region
from picogram.semantics.words import TextSections, Words
from picogram.text.coder import TextCoder
from picogram.text.fixed import fixed_symbol
from picogram.text.token_rangecoder import WideRangeEncoder

STC = EncodeOptions(profile="stc")
COSTLY = "Ein Eisvogel taucht kopfüber in den Bergsee."
OBJECTS = (
    Region("dog", "black, wet", np.eye(8, dtype=np.bool_)),
    Region("ball", "", np.tri(16, dtype=np.bool_)),
)


def words_of(captioner: Says | Fails | None = None) -> Words:
    """Words without a language model."""
    return Words(TextCoder(), captioner or Says(CAPTION))


@pytest.fixture(scope="module")
def words() -> Words:
    return words_of()


@pytest.fixture(scope="module")
def file(photos: list[Image.Image], words: Words) -> bytes:
    return picogram.encode(photos[0], bytes=300, profile="stc", caption=CAPTION, words=words)


def with_sections(profile: Profile, **sections: bytes) -> bytes:
    header = Header(profile, 64, 48, DEFAULT_LATENT)
    return serialise(Picogram(header, b"\x80", sections))


def coded(*descriptions: Description) -> list[dict[str, bytes]]:
    return [sections.optional for sections in words_of().code(descriptions)]


# --- what goes in comes out ------------------------------------------------------------------------------


def test_a_caption_travels_beside_the_picture(photo: Image.Image, words: Words) -> None:
    encoded = picogram.encode_detailed(photo, quality=20, profile="stc", caption=CAPTION, words=words)
    decoded = picogram.decode_detailed(encoded.data, steps=0, words=words)
    assert encoded.description == decoded.description == Description(CAPTION)
    assert encoded.coders == {"caption": "static"}
    assert encoded.warnings == decoded.warnings == ()
    plain = picogram.decode(picogram.encode(photo, quality=20), steps=0)
    assert decoded.picture.tobytes() == plain.tobytes() == picogram.decode(encoded.data, steps=0).tobytes()


def test_without_a_given_caption_the_captioner_is_asked(photo: Image.Image) -> None:
    words = words_of(Says("A rocket.", OBJECTS))
    encoded = picogram.encode_detailed(photo, profile="stc", words=words)
    assert encoded.description == Description("A rocket.")  # stc carries no objects
    assert set(parse(encoded.data).optional) == {"caption"}


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_any_text_round_trips(caption: str) -> None:
    (sections,) = coded(Description(caption))
    (read,) = words_of().read([Picogram(Header(Profile.STC, 8, 8, DEFAULT_LATENT), b"\x80", sections)])
    assert (read.description, read.warnings) == (Description(caption), ())


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "\n",
        "two\nlines\r\n",
        "\x00\x1b[2J",
        "\u202eright to left: \u0634\u062c\u0631\u0629",
        "\U0001f468\u200d\U0001f469",
        "<|im_start|>",
        "word " * 2000,
    ],
)
def test_strange_captions_are_carried_as_they_are(caption: str, words: Words) -> None:
    picture = Image.new("RGB", (32, 32), "gray")
    data = picogram.encode(picture, profile="stc", caption=caption, words=words)
    assert picogram.decode_detailed(data, words=words).description == Description(caption)


def test_objects_and_their_masks_are_read_from_files(words: Words) -> None:
    description = Description(CAPTION, OBJECTS)
    (sections,) = coded(description)
    for profile in (Profile.MISC, Profile.SEDIC):
        decoded = picogram.decode_detailed(with_sections(profile, **sections), words=words)
        assert decoded.description == description
        assert decoded.picture.size == (64, 48)
        assert decoded.warnings == ()


def test_a_file_that_lacks_its_caption_still_shows_the_picture(words: Words) -> None:
    decoded = picogram.decode_detailed(with_sections(Profile.STC), words=words)
    assert (decoded.description, decoded.warnings) == (None, ("the file has no caption",))
    assert picogram.decode_detailed(with_sections(Profile.TACO)).picture.size == (64, 48)


def test_sections_that_a_profile_does_not_have_are_refused(words: Words) -> None:
    (sections,) = coded(Description(CAPTION, OBJECTS))
    for profile in (Profile.BASE, Profile.STC, Profile.TACO):
        with pytest.raises(UnsupportedProfile, match="objects"):
            picogram.decode(with_sections(profile, objects=sections["objects"]))


# --- what it costs ---------------------------------------------------------------------------------------


def test_budgets_count_the_words_and_are_nearly_used(photos: list[Image.Image], words: Words) -> None:
    shortfalls = []
    for photo in photos[:2]:
        for budget in (90, 200, 500, 900):
            data = picogram.encode(photo, bytes=budget, profile="stc", caption=CAPTION, words=words)
            assert len(data) <= budget
            shortfalls.append(1 - len(data) / budget)
    assert np.mean(shortfalls) < 0.03


def test_bits_per_pixel_count_the_words(photo: Image.Image, words: Words) -> None:
    data = picogram.encode(photo, bpp=0.05, profile="stc", caption=CAPTION, words=words)
    assert 0.04 < 8 * len(data) / (photo.width * photo.height) <= 0.05


def test_a_given_caption_is_kept_whatever_its_share(photo: Image.Image, words: Words) -> None:
    encoded = picogram.encode_detailed(photo, bytes=90, profile="stc", caption=COSTLY, words=words)
    section = parse(encoded.data).optional["caption"]
    assert len(section) > MAX_WORDS_SHARE * 90
    assert encoded.description == Description(COSTLY)


def test_budgets_below_the_words_say_what_would_do(photo: Image.Image, words: Words) -> None:
    smallest = None
    for budget in (1, 12, 30):
        with pytest.raises(BudgetTooSmall, match="smallest has") as caught:
            picogram.encode(photo, bytes=budget, profile="stc", caption=COSTLY, words=words)
        smallest = int(str(caught.value).split()[-1])
    assert smallest is not None
    data = picogram.encode(photo, bytes=smallest, profile="stc", caption=COSTLY, words=words)
    assert len(data) == smallest
    with pytest.raises(BudgetTooSmall):
        picogram.encode(photo, bytes=smallest - 1, profile="stc", caption=COSTLY, words=words)


def test_a_captioners_words_are_left_out_where_they_cost_too_much(photo: Image.Image, words: Words) -> None:
    section = coded(Description(CAPTION))[0]["caption"]
    too_small = int((len(section) + 1) / MAX_WORDS_SHARE) - 1
    encoded = picogram.encode_detailed(photo, bytes=too_small, profile="stc", words=words)
    assert encoded.data == picogram.encode(photo, bytes=too_small)
    assert (encoded.description, encoded.coders) == (None, {})
    assert "left out" in encoded.warnings[0]
    kept = picogram.encode_detailed(photo, bytes=too_small + 8, profile="stc", words=words)
    assert kept.description == Description(CAPTION)


def test_a_captioners_words_never_make_a_budget_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picogram.pipeline.assemble.MAX_WORDS_SHARE", 1.0)
    picture = Image.new("RGB", (16, 16), "navy")
    with pytest.raises(BudgetTooSmall) as caught:
        picogram.encode(picture, bytes=1)
    smallest = int(str(caught.value).split()[-1])
    words = WordsVariant(TextSections(b"\x00\x01", None, {"caption": "static"}), Description("a"))
    prepared = PreparedWords((words, WordsVariant(lost="the caption was")))
    encoded = assemble(picture, prepared, EncodeOptions(bytes=smallest, profile="stc"))
    assert encoded.data == picogram.encode(picture, bytes=smallest)
    assert "too little" in encoded.warnings[0]


# --- captioners that fail --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("captioner", "told"),
    [
        (Says(""), "found no words"),
        (Says(" \n"), "found no words"),
        (Fails(RuntimeError("out of\nmemory")), r"failed \(out of memory\)"),
        (Fails(UsageError("the caption has 10,001 characters")), "failed"),
    ],
)
def test_no_caption_is_better_than_nonsense(photo: Image.Image, captioner: Says | Fails, told: str) -> None:
    encoded = picogram.encode_detailed(photo, bytes=200, profile="stc", words=words_of(captioner))
    assert encoded.data == picogram.encode(photo, bytes=200)
    assert encoded.description is None
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(encoded.warnings[0])


def test_missing_models_are_named_instead(photo: Image.Image) -> None:
    missing = ModelMissing("run `picogram models pull text`")
    with pytest.raises(ModelMissing, match="picogram models pull"):
        picogram.encode(photo, profile="stc", words=words_of(Fails(missing)))


def test_one_failing_picture_does_not_cost_the_others_their_words(photos: list[Image.Image]) -> None:
    words = words_of(Fails(SelfCheckFailed("no"), photos[1].size))
    with pytest.raises(SelfCheckFailed):  # a fault of the models, whoever's turn it is
        prepare(photos[:3], [STC] * 3, words=words)
    words = words_of(Fails(RuntimeError("no"), photos[1].size))
    found = prepare(photos[:3], [STC, STC, replace(STC, caption="Mine.")], words=words)
    assert [p.variants[0].description for p in found] == [Description(CAPTION), None, Description("Mine.")]
    assert [p.variants[-1].description for p in found] == [None, None, Description("Mine.")]
    assert "failed (no)" in found[1].warnings[0]


@pytest.mark.parametrize("caption", ["x" * 10_001, "half \ud83d", 7])
def test_captions_that_cannot_be_are_usage_errors(photo: Image.Image, caption: str, words: Words) -> None:
    with pytest.raises(UsageError, match="caption"):
        picogram.encode(photo, profile="stc", caption=caption, words=words)


def test_objects_do_not_go_into_stc_or_base(photo: Image.Image, words: Words) -> None:
    for profile in ("stc", "base"):
        with pytest.raises(UsageError, match="objects"):
            picogram.encode(photo, profile=profile, objects=OBJECTS, words=words)


# --- damage ----------------------------------------------------------------------------------------------


def test_any_damaged_byte_of_the_words_costs_the_words_only(file: bytes, words: Words) -> None:
    size = len(parse(file).optional["caption"])
    expected = picogram.decode(file, steps=0).tobytes()
    for position in (*range(len(file) - 4 - size, len(file) - 4), len(file) - 2, len(file) - 1):
        damaged = file[:position] + bytes([file[position] ^ 0x21]) + file[position + 1 :]
        (read,) = words.read([parse(damaged)])
        assert read.description is None
        assert read.warnings == ("the caption was left out: it is damaged",)
    decoded = picogram.decode_detailed(damaged, steps=0, words=words)
    assert decoded.picture.tobytes() == expected
    assert decoded.warnings == read.warnings


def test_any_damaged_byte_before_the_words_is_refused(file: bytes) -> None:
    size = len(parse(file).optional["caption"])
    for position in (*range(2, len(file) - 4 - size), len(file) - 4, len(file) - 3):
        with pytest.raises(CorruptBitstream):
            picogram.decode(file[:position] + bytes([file[position] ^ 0x21]) + file[position + 1 :])


def unknown_coder() -> bytes:
    encoder = WideRangeEncoder()
    encoder.encode(*fixed_symbol((224, 16, 8, 4, 1, 1, 1, 1), 6))
    return encoder.finish()


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (unknown_coder(), "coder 6"),
        (b"", "picogram models pull text"),  # zeros: the most likely coder, which needs the language model
        (b"\xff" * 20, "the caption was left out"),
    ],
)
def test_words_that_cannot_be_read_are_warnings(section: bytes, told: str, words: Words) -> None:
    decoded = picogram.decode_detailed(with_sections(Profile.STC, caption=section), words=words)
    assert decoded.picture.size == (64, 48)
    assert decoded.description is None
    assert told in decoded.warnings[0]


def test_arbitrary_sections_never_stop_a_batch(words: Words) -> None:
    rng = np.random.default_rng(5)
    (good,) = coded(Description(CAPTION, OBJECTS))
    files = [Picogram(Header(Profile.SEDIC, 8, 8, DEFAULT_LATENT), b"\x80", good)]
    for _ in range(150):
        noise = {name: rng.bytes(int(rng.integers(0, 40))) for name in ("caption", "objects")}
        files.append(replace(files[0], optional=noise))
    read = words.read(files)
    assert read[0].description == Description(CAPTION, OBJECTS)
    assert all(len(r.warnings) == len(r.problems) for r in read)
    assert sum(bool(r.problems) for r in read) > 100


def test_damaged_objects_leave_the_caption(words: Words) -> None:
    (sections,) = coded(Description(CAPTION, OBJECTS))
    for objects in (b"", b"\x80", b"\x7f" + sections["objects"], b"\x00"):
        data = with_sections(Profile.MISC, caption=sections["caption"], objects=objects)
        decoded = picogram.decode_detailed(data, words=words)
        assert decoded.description == Description(CAPTION)
        assert any("the objects were left out" in warning for warning in decoded.warnings)


# --- steps that run apart --------------------------------------------------------------------------------


def test_the_steps_taken_apart_give_the_same_file(photo: Image.Image, words: Words) -> None:
    options = EncodeOptions(bytes=300, profile="stc")
    (prepared,) = prepare([photo], [options], words=words)
    encoded = assemble(photo, prepared, options)
    assert encoded.data == picogram.encode(photo, bytes=300, profile="stc", words=words)


def test_nothing_prepared_makes_a_plain_file(photo: Image.Image) -> None:
    encoded = assemble(photo, PreparedWords(), EncodeOptions(bytes=300))
    assert encoded.data == picogram.encode(photo, bytes=300)


def test_the_specs_cover_every_profile() -> None:
    assert {spec.code for spec in PROFILES.values()} == set(Profile)
    assert [spec.name for spec in PROFILES.values()] == list(PROFILES)
    for spec in PROFILES.values():
        assert set(spec.required) <= set(spec.sections) <= {"caption", "objects"}
        assert profile_named(spec.name) is spec
        assert profile_of(parse(with_sections(spec.code))) is spec


@pytest.mark.parametrize("name", ["", "BASE", "\u202estc", None, ["stc"]])
def test_names_of_no_profile_are_refused(name: Any) -> None:
    with pytest.raises(UnsupportedProfile, match="is not known"):
        profile_named(name)
