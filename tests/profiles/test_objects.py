# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files of misc, sedic and taco as they are written: whose words they carry, and which go first where bytes are few."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import picogram
from picogram.api import assemble, prepare
from picogram.bitstream import parse
from picogram.cli.main import main
from picogram.errors import BudgetTooSmall, ModelMissing, UsageError
from picogram.pipeline.assemble import MAX_WORDS_SHARE
from picogram.pipeline.handovers import WordsToWrite
from picogram.request import EncodeOptions
from picogram.semantics.description import Description, Region
from picogram.semantics.plain import MAX_JSON_CHARACTERS, objects_of, objects_of_json, plain_objects
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder

CAPTION = "Ein Eisvogel taucht kopfüber in den Bergsee."


def region(name: str, detail: str = "", side: int = 8, column: int = 2) -> Region:
    mask = np.zeros((side, side), np.bool_)
    mask[side // 4 :, column * side // 8 :] = True
    return Region(name, detail, mask)


class Sees:
    """A captioner that sees the same in every picture, and counts how often it is asked for what."""

    def __init__(self, caption: str = CAPTION, names: Sequence[str] = ("woman", "flag", "suit")) -> None:
        self.caption, self.names = caption, names
        self.asked: list[tuple[bool, int]] = []

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        self.asked.append((objects, side))
        found = [region(name, "seen from the front", side, i) for i, name in enumerate(self.names)]
        return [Description(self.caption, tuple(found) if objects else ())] * len(pictures)


class Fails:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        raise self.error


def words_of(captioner: Sees | Fails | None = None) -> Words:
    """Words without a language model."""
    return Words(TextCoder(), captioner or Sees())


def names(description: Description | None) -> list[str]:
    assert description is not None
    return [each.name for each in description.objects]


def accounted(data: bytes) -> int:
    """What inspection says that header and sections take, bits and bytes agreeing."""
    found = picogram.inspect(data, words=words_of())
    assert found.file_bytes == len(data)
    assert all(8 * section.bytes == section.bits for section in found.details.values())
    assert {name: section.bytes for name, section in found.details.items()} == found.sections
    return found.header_bytes + sum(found.sections.values())


@pytest.mark.parametrize(("profile", "side"), [("misc", 8), ("sedic", 16)])
def test_what_the_captioner_finds_is_in_the_file(photo: Image.Image, profile: str, side: int) -> None:
    captioner = Sees()
    words = words_of(captioner)
    encoded = picogram.encode_detailed(photo, quality=20, profile=profile, words=words)
    assert captioner.asked == [(True, side)]
    assert (encoded.warnings, parse(encoded.data).header.profile.name.lower()) == ((), profile)
    read = words.read([parse(encoded.data)])[0]
    assert read.description == encoded.description == captioner.describe([photo], side=side)[0]
    assert encoded.coders == read.coders == {"caption": "static", "objects": "static"}


@pytest.mark.parametrize(
    ("profile", "sections"),
    [
        ("base", {"latent"}),
        ("stc", {"latent", "caption"}),
        ("misc", {"latent", "caption", "objects"}),
        ("taco", {"latent"}),
        ("sedic", {"latent", "caption", "objects"}),
    ],
)
def test_every_byte_of_every_profile_is_accounted_for(
    photo: Image.Image, profile: str, sections: set[str]
) -> None:
    for options in ({"bytes": 3500}, {"bpp": 0.9}, {"quality": 10}):
        data = picogram.encode(photo, profile=profile, words=words_of(), **options)
        assert set(picogram.inspect(data, words=words_of()).sections) == sections
        assert accounted(data) == len(data)


@pytest.mark.parametrize(
    ("profile", "objects"),
    [
        ("misc", [region("dog", "wet"), region("ball", column=5)]),
        ("misc", []),
        ("sedic", [region(f"thing {side}", "odd", side) for side in (16, 32, 64)]),
        ("sedic", [region(f"thing {n}", "", 16) for n in range(8)]),
    ],
)
@pytest.mark.parametrize("caption", ["A dog.", "", None])
def test_given_objects_and_captions_are_kept_as_they_are(
    photo: Image.Image, profile: str, objects: list[Region], caption: str | None
) -> None:
    words = words_of()
    encoded = picogram.encode_detailed(
        photo, quality=5, profile=profile, caption=caption, objects=objects, words=words
    )
    expected = Description(CAPTION if caption is None else caption, tuple(objects))
    assert picogram.decode_detailed(encoded.data, steps=0, words=words).description == expected
    assert set(parse(encoded.data).optional) == ({"caption", "objects"} if objects else {"caption"})
    assert accounted(encoded.data) == len(encoded.data)


def test_the_captioner_is_asked_only_for_what_nobody_gave(photo: Image.Image) -> None:
    captioner = Sees()
    words = words_of(captioner)
    picogram.encode(photo, quality=5, profile="misc", caption="A.", objects=[region("dog")], words=words)
    assert captioner.asked == []
    picogram.encode(photo, quality=5, profile="misc", objects=[], words=words)
    picogram.encode(photo, quality=5, profile="stc", words=words)
    assert [objects for objects, _ in captioner.asked] == [False, False]
    encoded = picogram.encode_detailed(photo, quality=5, profile="misc", caption="Mine.", words=words)
    assert encoded.description is not None
    assert encoded.description.caption == "Mine."
    assert names(encoded.description) == ["woman", "flag", "suit"]


def test_no_more_found_objects_than_the_profile_takes(photo: Image.Image) -> None:
    words = words_of(Sees(names=[f"thing {n}" for n in range(5)]))
    assert len(names(picogram.encode_detailed(photo, profile="misc", words=words).description)) == 3
    assert len(names(picogram.encode_detailed(photo, profile="sedic", words=words).description)) == 5


# --- what goes first -------------------------------------------------------------------------------------


def shares(photo: Image.Image, profile: str = "misc") -> list[int]:
    """What the variants of words cost that the captioner gives, from all to none."""
    (prepared,) = prepare([photo], [EncodeOptions(profile=profile)], words=words_of())
    return [variant.size for variant in prepared.variants]


def test_details_go_first_then_objects_then_the_caption(photo: Image.Image) -> None:
    sizes = shares(photo)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 6
    found = []
    for size in sizes:
        budget = max(int(size / MAX_WORDS_SHARE), 60)
        encoded = picogram.encode_detailed(photo, bytes=budget, profile="misc", words=words_of())
        assert len(encoded.data) <= budget
        assert accounted(encoded.data) == len(encoded.data)
        found.append((encoded.description, encoded.warnings))
    assert found[0][1] == ()
    assert [len(warnings) for _, warnings in found] == list(range(6))
    fullest, *others, nothing = [description for description, _ in found]
    assert fullest is not None
    assert all(each.detail for each in fullest.objects)
    assert [names(some) for some in others] == [["woman", "flag", "suit"], ["woman", "flag"], ["woman"], []]
    assert not any(each.detail for some in others if some for each in some.objects)
    assert nothing is None
    said = [" ".join(warning.split()[:3]) for warning in found[-1][1]]
    assert said == [
        "the details of",
        'the object "suit"',
        'the object "flag"',
        'the object "woman"',
        "the caption was",
    ]


def test_without_any_words_the_file_is_a_plain_one(photo: Image.Image) -> None:
    encoded = picogram.encode_detailed(photo, bytes=40, profile="sedic", words=words_of())
    assert encoded.data == picogram.encode(photo, bytes=40)
    assert (encoded.description, encoded.coders) == (None, {})
    assert encoded.warnings[-1].startswith("the caption was left out: ")


def test_found_words_share_the_budget_and_given_ones_do_not_count(photo: Image.Image) -> None:
    long = "A woman in an orange suit, " * 12
    budget = 400
    encoded = picogram.encode_detailed(photo, bytes=budget, profile="misc", caption=long, words=words_of())
    assert encoded.description is not None
    assert encoded.description.caption == long
    assert names(encoded.description) == ["woman", "flag", "suit"]
    objects = [region("dog", "wet " * 60 + "all over")]
    given = picogram.encode_detailed(photo, bytes=80, profile="misc", objects=objects, words=words_of())
    assert given.description == Description("", tuple(objects))
    assert given.warnings[0].startswith("the caption was left out: the words would take")


def test_words_that_leave_no_room_for_the_picture_are_left_out() -> None:
    picture = Image.new("RGB", (16, 16), "navy")
    with pytest.raises(BudgetTooSmall) as caught:
        picogram.encode(picture, bytes=1, profile="misc", caption="", objects=[], words=words_of())
    smallest = int(str(caught.value).split()[-1])
    words = words_of(Sees(names=["x"]))
    options = EncodeOptions(bytes=smallest, profile="misc", caption="")
    (prepared,) = prepare([picture], [options], words=words)
    encoded = assemble(picture, prepared, options)
    assert len(encoded.data) == smallest
    assert encoded.description == Description("")
    assert 'the object "x" was left out' in encoded.warnings[-1]


def test_given_words_that_do_not_fit_are_an_error(photo: Image.Image) -> None:
    objects = [region("dog", "wet"), region("cat", "dry")]
    with pytest.raises(BudgetTooSmall, match="smallest has"):
        picogram.encode(photo, bytes=30, profile="misc", caption=CAPTION, objects=objects, words=words_of())


@pytest.mark.parametrize(
    ("caption", "objects", "told"),
    [
        (None, None, "no caption and no objects"),
        ("Mine.", None, "carries no objects"),
        (None, [region("dog")], "carries no caption"),
    ],
)
def test_a_failing_captioner_costs_only_what_it_was_asked_for(
    photo: Image.Image, caption: str | None, objects: list[Region] | None, told: str
) -> None:
    words = words_of(Fails(RuntimeError("no luck")))
    encoded = picogram.encode_detailed(
        photo, bytes=300, profile="misc", caption=caption, objects=objects, words=words
    )
    (warning,) = encoded.warnings
    assert warning.startswith("the captioner failed (no luck)")
    assert told in warning
    nothing = caption is None and objects is None
    assert encoded.description == (None if nothing else Description(caption or "", tuple(objects or ())))
    with pytest.raises(ModelMissing):
        picogram.encode(photo, profile="misc", caption=caption, words=words_of(Fails(ModelMissing("pull"))))


def test_objects_without_a_caption_are_worth_a_file(photo: Image.Image) -> None:
    encoded = picogram.encode_detailed(photo, quality=5, profile="misc", words=words_of(Sees(" ")))
    assert encoded.description is not None
    assert (encoded.description.caption, len(encoded.description.objects)) == ("", 3)
    assert encoded.warnings == ("the captioner found no words: the file carries no caption",)
    scarce = picogram.encode_detailed(photo, bytes=28, profile="misc", words=words_of(Sees("")))
    assert scarce.description is None
    assert scarce.warnings[-1].startswith('the object "woman" was left out')


# --- what cannot be --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "objects", "told"),
    [
        ("misc", [region("dog")] * 4, "up to 3 objects, not 4"),
        ("misc", [region("dog", "", 16)], "side of 8, not 16"),
        ("sedic", [region("dog")], "side of 16, 32, 64, not 8"),
        ("sedic", [region("dog", "", 16)] * 9, "up to 8 objects, not 9"),
        ("misc", ["dog"], "Region, not str"),
        ("stc", [region("dog")], "carries no objects"),
    ],
)
def test_objects_that_do_not_suit_the_profile_are_usage_errors(
    photo: Image.Image, profile: str, objects: list[Region], told: str
) -> None:
    for encode in (
        lambda: picogram.encode(photo, profile=profile, objects=objects, words=words_of()),
        lambda: EncodeOptions(profile=profile, objects=objects),
    ):
        with pytest.raises(UsageError, match=told):
            encode()


def test_prepared_words_travel_as_plain_values(photo: Image.Image) -> None:
    dog = [region("dog", "wet", 16)]
    asked = [
        EncodeOptions(profile="sedic"),
        EncodeOptions(profile="sedic", caption="Mine."),
        EncodeOptions(profile="sedic", objects=dog),
    ]
    for some in prepare([photo] * 3, asked, words=words_of()):
        back = WordsToWrite.of(json.loads(json.dumps(WordsToWrite(some).facts())))
        assert back is not None
        for budget in (60, 150, 900):
            options = EncodeOptions(bytes=budget, profile="sedic")
            encoded = assemble(photo, back.prepared, options)
            assert encoded == assemble(photo, some, options)


def test_objects_as_json_go_there_and_back() -> None:
    objects = (region("dog", "wet: all over", 16), region("\N{BEAR FACE} 犬", "", 64))
    text = json.dumps(plain_objects(objects))
    assert objects_of_json(text) == objects_of_json(text.encode()) == objects
    assert objects_of([{"name": "dog", "mask": plain_objects(objects)[0]["mask"]}])[0].detail == ""
    with pytest.raises(UsageError, match="characters of JSON"):
        objects_of_json(" " * MAX_JSON_CHARACTERS + "[]")
    with pytest.raises(UsageError, match="not JSON"):
        objects_of_json(b"\xff\xfe[")


# --- on the command line ---------------------------------------------------------------------------------


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save("a.png")
    Path("good.json").write_text(json.dumps(plain_objects([region("wall", "grey")])))
    Path("fine.json").write_text(json.dumps(plain_objects([region("wall", "grey", 16)])))
    Path("bad.json").write_text("[{")
    Path("large.json").write_text(" " * (MAX_JSON_CHARACTERS + 1))


@pytest.mark.usefixtures("files")
def test_objects_come_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--profile", "misc", "--caption", "A wall.", "--objects", "good.json"]
    assert main(["encode", "a.png", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  object: wall: grey"
    read = picogram.decode_detailed(Path("a.pico").read_bytes(), steps=0, words=words_of())
    assert read.description is None or names(read.description) == ["wall"]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--profile", "misc", "--objects", "bad.json"], "bad.json: the objects are not JSON"),
        (["--profile", "misc", "--objects", "large.json"], "large.json: "),
        (["--profile", "misc", "--objects", "absent.json"], "absent.json"),
        (["--profile", "misc", "--objects", "fine.json"], "side of 8, not 16"),
        (["--profile", "sedic", "--objects", "good.json"], "not 8"),
        (["--profile", "stc", "--objects", "good.json"], "carries no objects"),
        (["b.png", "--profile", "misc", "--objects", "good.json"], "one image only"),
    ],
)
def test_bad_objects_on_the_command_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", "a.png", "--caption", "A wall.", *options]) == 2
    assert told in capsys.readouterr().err
    assert not Path("a.pico").exists()
