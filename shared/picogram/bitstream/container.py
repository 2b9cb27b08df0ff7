# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The ``.pico`` container: a header of about ten bytes, the latent section, optional text sections, checksums.

    byte 0      10111 vvv   magic (5 bits), version (3 bits)
    byte 1      ppp dd s s s   profile, halvings of the coded picture, optional sections present
    varints     width, height, model id, one length per optional section
    latent      everything between the lengths and the optional sections
    caption, objects            where present, in this order
    last 4      without optional sections: CRC-32 of everything before
                with them: CRC-16 of header and latent, then CRC-16 of the optional sections

A reader checks magic, version, size and checksum before it believes any field, and every field before it allocates.
Damaged words are told from a damaged latent: they are left out and named, and the picture is still there.
"""

from __future__ import annotations

import binascii
import zlib
from dataclasses import dataclass, field
from enum import IntEnum

from picogram.errors import (
    CorruptBitstream,
    LimitExceeded,
    NotAPicogram,
    UnsupportedProfile,
    UnsupportedVersion,
)

MEDIA_TYPE = "application/vnd.picogram"
SUFFIX = ".pico"
VERSION = 1
MAX_HALVINGS = 3
CRC_BYTES = 4
CHECK_BYTES = 2
"""A file with optional sections has two checks of this size in the place of its CRC-32."""
MIN_FILE_BYTES = 2 + 3 + 1 + CRC_BYTES  # two bytes, three varints, a rate index, the checksum

_MAGIC = 0b10111_000
_MAGIC_MASK = 0b11111_000
OPTIONAL = ("caption", "objects")
_OPTIONAL_MASK = 0b011
_RESERVED_SECTION = 0b100
_VARINT_BYTES = 5


class Profile(IntEnum):
    """How the sections of a file are turned back into a picture."""

    BASE = 0
    STC = 1
    MISC = 2
    TACO = 3
    SEDIC = 4


@dataclass(frozen=True)
class Limits:
    """What a reader accepts: larger claims are refused before anything is allocated."""

    max_pixels: int = 40_000_000
    max_side: int = 65_535
    max_file_bytes: int = 16 * 2**20
    max_section_bytes: int = 64 * 2**10
    """Of each optional section; the latent is bounded by the file."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself. Sizes are those of the original picture, in pixels."""

    profile: Profile
    width: int
    height: int
    model: int
    halvings: int = 0
    version: int = VERSION

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height of the picture that the latent describes: halved, rounded up."""
        scale = 1 << self.halvings
        return -(-self.width // scale), -(-self.height // scale)


@dataclass(frozen=True)
class Picogram:
    """A parsed file: header, the latent section, and the optional ones by name.

    ``damaged`` names the optional sections that were there but did not match their checksum; ``optional`` lacks them.
    """

    header: Header
    latent: bytes
    optional: dict[str, bytes] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """The numbers of a header as they stand, and where the sections are."""

    width: int
    height: int
    model: int
    latent: slice
    sections: dict[str, slice]


def write_varint(value: int) -> bytes:
    """Unsigned LEB128, shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Value and the position after it; CorruptBitstream if it is cut off, too long or not the shortest form."""
    value = 0
    for count in range(_VARINT_BYTES):
        if position + count >= len(data):
            raise CorruptBitstream("a number is cut off")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count:
                raise CorruptBitstream("a number is not in its shortest form")
            return value, position + count + 1
    raise CorruptBitstream("a number has too many bytes")


def serialise(picogram: Picogram) -> bytes:
    """The bytes of a file. LimitExceeded for an optional section that readers would refuse."""
    header = picogram.header
    present = [name for name in OPTIONAL if name in picogram.optional]
    for name in present:
        _check_section(name, len(picogram.optional[name]), Limits())
    mask = sum(1 << OPTIONAL.index(name) for name in present)
    parts = [bytes([_MAGIC | header.version, header.profile << 5 | header.halvings << 3 | mask])]
    parts += [write_varint(n) for n in (header.width, header.height, header.model)]
    parts += [write_varint(len(picogram.optional[name])) for name in present]
    body = b"".join([*parts, picogram.latent])
    if not present:
        return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")
    words = b"".join(picogram.optional[name] for name in present)
    return body + words + check(body) + check(words)


def check(data: bytes) -> bytes:
    """The 16-bit check of one half of a file with optional sections: CRC-16 with polynomial 0x1021, started at 0xFFFF.

    It finds every burst of up to 16 bits, which 16 bits of a CRC-32 would not.
    """
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(CHECK_BYTES, "little")


def parse(data: bytes, limits: Limits | None = None) -> Picogram:
    """Read a file.

    Raises NotAPicogram, UnsupportedVersion, CorruptBitstream, UnsupportedProfile or LimitExceeded; never allocates
    more than the file itself. Damage that only hits optional sections is no error: see ``Picogram.damaged``.
    """
    limits = limits or Limits()
    _check_envelope(data, limits)
    if not data[1] & _OPTIONAL_MASK:  # the checksum holds already; with optional sections, numbers come first
        _check_known(data[1])
    layout = _read_layout(data)
    words = data[layout.latent.stop : -CRC_BYTES]
    if layout.sections and check(data[: layout.latent.stop]) != data[-CRC_BYTES:-CHECK_BYTES]:
        raise _damaged()
    _check_known(data[1])
    profile, halvings = Profile(data[1] >> 5), data[1] >> 3 & 0b11
    header = Header(profile, layout.width, layout.height, layout.model, halvings)
    _check_size(header, limits)
    for name, span in layout.sections.items():
        _check_section(name, span.stop - span.start, limits)
    latent = data[layout.latent]
    if layout.sections and check(words) != data[-CHECK_BYTES:]:
        return Picogram(header, latent, damaged=tuple(layout.sections))
    return Picogram(header, latent, {name: data[span] for name, span in layout.sections.items()})


def section_sizes(data: bytes) -> dict[str, int]:
    """Bytes of each section of a file that ``parse`` accepts, damaged ones included, in the order of the file."""
    layout = _read_layout(data)
    spans = {"latent": layout.latent} | layout.sections
    return {name: span.stop - span.start for name, span in spans.items()}


def _read_layout(data: bytes) -> _Layout:
    """Split a file; CorruptBitstream unless the numbers are whole and leave a latent."""
    body = data[:-CRC_BYTES]
    width, position = read_varint(body, 2)
    height, position = read_varint(body, position)
    model, position = read_varint(body, position)
    lengths = {}
    for bit, name in enumerate(OPTIONAL):
        if body[1] >> bit & 1:
            lengths[name], position = read_varint(body, position)
    end = len(body) - sum(lengths.values())
    if end <= position:
        raise CorruptBitstream("the sections are longer than the file")
    sections, start = {}, end
    for name, length in lengths.items():
        sections[name] = slice(start, start + length)
        start += length
    return _Layout(width, height, model, slice(position, end), sections)


def _check_envelope(data: bytes, limits: Limits) -> None:
    if not data:
        raise NotAPicogram("the file is empty")
    if data[0] & _MAGIC_MASK != _MAGIC:
        raise NotAPicogram("the file does not start like a picogram")
    version = data[0] & ~_MAGIC_MASK & 0xFF
    if version != VERSION:
        raise UnsupportedVersion(
            f"the file has format version {version}, this is a reader of version {VERSION}"
        )
    if len(data) > limits.max_file_bytes:
        raise LimitExceeded(f"the file has {len(data)} bytes, more than the limit of {limits.max_file_bytes}")
    if len(data) < MIN_FILE_BYTES:
        raise CorruptBitstream(f"the file has only {len(data)} bytes")
    whole = not data[1] & _OPTIONAL_MASK
    if whole and zlib.crc32(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise _damaged()


def _check_known(byte: int) -> None:
    """Profile and reserved bit, both in byte 1."""
    if byte >> 5 not in Profile.__members__.values():
        raise UnsupportedProfile(f"profile {byte >> 5} is not known to this version")
    if byte & _RESERVED_SECTION:
        raise UnsupportedProfile("the file has a section that is not known to this version")


def _damaged() -> CorruptBitstream:
    return CorruptBitstream("the checksum does not match: the file is damaged or cut off")


def _check_size(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if not width or not height:
        raise CorruptBitstream("the picture has no pixels")
    if max(width, height) > limits.max_side:
        raise LimitExceeded(f"{width}x{height} is over the limit of {limits.max_side} pixels a side")
    if width * height > limits.max_pixels:
        raise LimitExceeded(f"{width}x{height} is over the limit of {limits.max_pixels} pixels")


def _check_section(name: str, length: int, limits: Limits) -> None:
    if length > limits.max_section_bytes:
        raise LimitExceeded(
            f"the {name} section has {length} bytes, more than the limit of {limits.max_section_bytes}"
        )
