# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The ``.pico`` container: a header of about ten bytes, the latent section, optional text sections, a checksum.

    byte 0      10111 vvv   magic (5 bits), version (3 bits)
    byte 1      ppp dd s s s   profile, halvings of the coded picture, optional sections present
    varints     width, height, model id, one length per optional section
    latent      everything between the lengths and the optional sections
    caption, objects            where present, in this order
    last 4      CRC-32 of everything before, little-endian

A reader checks magic, version, size and checksum before it believes any field, and every field before it allocates.
"""

from __future__ import annotations

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
MIN_FILE_BYTES = 2 + 3 + 1 + CRC_BYTES  # two bytes, three varints, a rate index, the checksum

_MAGIC = 0b10111_000
_MAGIC_MASK = 0b11111_000
_OPTIONAL = ("caption", "objects")
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
    """A parsed file: header, the latent section, and the optional ones by name."""

    header: Header
    latent: bytes
    optional: dict[str, bytes] = field(default_factory=dict)


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
    """The bytes of a file."""
    header = picogram.header
    present = [name for name in _OPTIONAL if name in picogram.optional]
    mask = sum(1 << _OPTIONAL.index(name) for name in present)
    parts = [bytes([_MAGIC | header.version, header.profile << 5 | header.halvings << 3 | mask])]
    parts += [write_varint(n) for n in (header.width, header.height, header.model)]
    parts += [write_varint(len(picogram.optional[name])) for name in present]
    body = b"".join([*parts, picogram.latent, *(picogram.optional[name] for name in present)])
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def parse(data: bytes, limits: Limits | None = None) -> Picogram:
    """Read a file.

    Raises NotAPicogram, UnsupportedVersion, CorruptBitstream, UnsupportedProfile or LimitExceeded; never allocates
    more than the file itself.
    """
    limits = limits or Limits()
    _check_envelope(data, limits)
    body = data[:-CRC_BYTES]
    profile, mask = body[1] >> 5, body[1] & 0b111
    if profile not in Profile.__members__.values():
        raise UnsupportedProfile(f"profile {profile} is not known to this version")
    if mask & _RESERVED_SECTION:
        raise UnsupportedProfile("the file has a section that is not known to this version")
    present = [name for bit, name in enumerate(_OPTIONAL) if mask >> bit & 1]
    width, position = read_varint(body, 2)
    height, position = read_varint(body, position)
    model, position = read_varint(body, position)
    header = Header(Profile(profile), width, height, model, body[1] >> 3 & 0b11)
    _check_size(header, limits)
    lengths = []
    for _ in present:
        length, position = read_varint(body, position)
        lengths.append(length)
    end = len(body) - sum(lengths)
    if end <= position:
        raise CorruptBitstream("the sections are longer than the file")
    optional, start = {}, end
    for name, length in zip(present, lengths, strict=True):
        optional[name] = body[start : start + length]
        start += length
    return Picogram(header, body[position:end], optional)


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
    if zlib.crc32(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise CorruptBitstream("the checksum does not match: the file is damaged or cut off")


def _check_size(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if not width or not height:
        raise CorruptBitstream("the picture has no pixels")
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise LimitExceeded(f"{width}x{height} is over the limit of {limits.max_pixels} pixels")
