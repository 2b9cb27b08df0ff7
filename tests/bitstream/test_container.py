# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The container refuses what it should, and keeps what it is given."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_reader import parse_by_table

from picogram.bitstream import Header, Limits, Picogram, Profile, parse, serialise
from picogram.bitstream.container import check, read_varint, section_sizes, write_varint
from picogram.errors import (
    BitstreamError,
    CorruptBitstream,
    LimitExceeded,
    NotAPicogram,
    UnsupportedProfile,
    UnsupportedVersion,
)

WIDE = Limits(max_pixels=2**40, max_side=2**30)
sections = st.dictionaries(st.sampled_from(["caption", "objects"]), st.binary(max_size=300))
headers = st.builds(
    Header,
    st.sampled_from(Profile),
    st.integers(1, 65_535),
    st.integers(1, 65_535),
    st.integers(0, 2**30),
    st.integers(0, 3),
)


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def example(**changes: object) -> bytes:
    values = {"profile": Profile.BASE, "width": 768, "height": 512, "model": 1} | changes
    return serialise(Picogram(Header(**values), b"\x80latent"))  # type: ignore[arg-type]


@given(headers, st.binary(min_size=1, max_size=300), sections)
def test_round_trip_keeps_every_field(header: Header, latent: bytes, optional: dict[str, bytes]) -> None:
    picogram = Picogram(header, latent, optional)
    assert parse(serialise(picogram), WIDE) == picogram


@given(headers, st.binary(min_size=1, max_size=300), sections)
def test_the_documented_table_describes_every_file(
    header: Header, latent: bytes, optional: dict[str, bytes]
) -> None:
    fields = parse_by_table(serialise(Picogram(header, latent, optional)))
    assert (fields["width"], fields["height"], fields["model"]) == (header.width, header.height, header.model)
    assert (fields["profile"], fields["halvings"], fields["latent"]) == (
        header.profile,
        header.halvings,
        latent,
    )
    assert {k: fields[k] for k in optional} == optional


def test_a_kodak_file_with_a_caption_has_a_header_of_twelve_bytes() -> None:
    header = Header(Profile.STC, 768, 512, 1)
    data = serialise(Picogram(header, b"x" * 2000, {"caption": b"y" * 40}))
    assert len(data) - 2040 == 12
    assert len(example()) - len(b"\x80latent") == 11


def worded(**sections: bytes) -> bytes:
    header = Header(Profile.STC, 768, 512, 1)
    return serialise(Picogram(header, b"\x80latent", sections))


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


def test_damaged_words_are_named_and_the_picture_is_kept() -> None:
    data = worded(caption=b"a dog", objects=b"dog")
    start = data.index(b"a dog")
    for position in (*range(start, start + 8), len(data) - 2, len(data) - 1):
        found = parse(flipped(data, position))
        assert (found.latent, found.optional) == (b"\x80latent", {})
        assert found.damaged == ("caption", "objects")
    assert section_sizes(flipped(data, start)) == {"latent": 7, "caption": 5, "objects": 3}


def test_damage_before_the_words_is_refused() -> None:
    data = worded(caption=b"a dog")
    for position in (*range(data.index(b"a dog")), len(data) - 4, len(data) - 3):
        with pytest.raises(BitstreamError):
            parse(flipped(data, position))


def test_every_truncation_of_a_file_with_words_is_refused() -> None:
    data = worded(caption=b"a dog", objects=b"")
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            parse(data[:length])


def test_vast_text_sections_are_neither_written_nor_read() -> None:
    header = Header(Profile.STC, 768, 512, 1)
    with pytest.raises(LimitExceeded, match="caption"):
        serialise(Picogram(header, b"\x80", {"caption": bytes(2**16 + 1)}))
    data = serialise(Picogram(header, b"\x80", {"caption": bytes(2**16)}))
    assert len(parse(data).optional["caption"]) == 2**16
    with pytest.raises(LimitExceeded, match="objects"):
        parse(worded(objects=bytes(11)), Limits(max_section_bytes=10))


def test_damage_is_told_before_claims_are_believed() -> None:
    """A file with words whose header was hit must not be called too large or of a future profile."""
    data = worded(caption=b"a dog")
    for position, value in ((1, 0xFD), (2, 0xFF)):
        with pytest.raises(CorruptBitstream):
            parse(data[:position] + bytes([value]) + data[position + 1 :])


def test_empty_and_foreign_files_are_not_picograms() -> None:
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(50), b"\xff\xd8\xff\xe0"):
        with pytest.raises(NotAPicogram):
            parse(data)


def test_every_truncation_is_refused() -> None:
    data = example()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            parse(data[:length])


def test_every_single_byte_change_is_refused() -> None:
    data = example()
    for position in range(len(data)):
        for value in range(256):
            if value != data[position]:
                changed = data[:position] + bytes([value]) + data[position + 1 :]
                with pytest.raises(BitstreamError):
                    parse(changed)


def test_future_versions_are_named_as_such() -> None:
    for version in (0, 2, 3, 4, 5, 6, 7):
        with pytest.raises(UnsupportedVersion, match=str(version)):
            parse(sealed(bytes([0b10111_000 | version]) + example()[1:-4]))


@pytest.mark.parametrize("profile", [5, 6, 7])
def test_unknown_profiles_are_refused(profile: int) -> None:
    with pytest.raises(UnsupportedProfile):
        parse(sealed(bytes([example()[0], profile << 5]) + example()[2:-4]))


def test_the_reserved_section_is_refused() -> None:
    with pytest.raises(UnsupportedProfile):
        parse(sealed(bytes([example()[0], 0b100]) + example()[2:-4]))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (70_000, 1), (1, 70_000), (6400, 6400)])
def test_sizes_over_the_limits_are_refused(width: int, height: int) -> None:
    with pytest.raises(LimitExceeded):
        parse(example(width=width, height=height))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_pictures_without_pixels_are_corrupt(width: int, height: int) -> None:
    with pytest.raises(CorruptBitstream):
        parse(example(width=width, height=height))


def test_files_over_the_size_limit_are_refused_before_they_are_hashed() -> None:
    with pytest.raises(LimitExceeded):
        parse(example(), Limits(max_file_bytes=10))


def test_sections_longer_than_the_file_are_corrupt() -> None:
    body = bytes([0b10111_001, 0b001]) + b"\x10\x10\x01" + write_varint(2**30) + b"abcdef"
    with pytest.raises(CorruptBitstream, match="longer than the file"):
        parse(body + check(body) + check(b""))


def test_unknown_profiles_with_words_are_refused() -> None:
    body = bytes([0b10111_001, 7 << 5 | 1]) + b"\x10\x10\x01\x02" + b"latent"
    with pytest.raises(UnsupportedProfile):
        parse(body + b"hi" + check(body) + check(b"hi"))


@given(st.integers(0, 2**35 - 1))
def test_varints_round_trip(value: int) -> None:
    data = write_varint(value)
    assert read_varint(data, 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\xff\x01"])
def test_bad_varints_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptBitstream):
        read_varint(data, 0)


@given(st.binary(max_size=80))
@settings(max_examples=500)
def test_arbitrary_bodies_behind_a_valid_checksum_parse_or_raise_typed_errors(body: bytes) -> None:
    data = sealed(bytes([0b10111_001]) + body)
    try:
        picogram = parse(data)
    except BitstreamError:
        return
    assert picogram.header.width * picogram.header.height <= Limits().max_pixels
    assert len(picogram.latent) >= 1
