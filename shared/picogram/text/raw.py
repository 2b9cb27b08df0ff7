# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The coder ``raw``: a text's UTF-8 bytes as they are, after their number. For texts that no model fits.

The number n is coded like an Elias gamma code: the bits it has, under a fixed table, then all of them but the first.
"""

from __future__ import annotations

from typing import Final

from picogram.errors import CorruptBitstream, UsageError
from picogram.text.fixed import fixed_symbol, read_fixed
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

MAX_CHARACTERS: Final = 10_000
"""Longest text that is taken from anybody; as UTF-8 it stays within MAX_TEXT_BYTES."""
MAX_TEXT_BYTES: Final = 65536
"""More UTF-8 bytes than this in one text are neither written nor read."""

_SIZE_COUNTS: Final = (
    8,
    8,
    16,
    24,
    32,
    40,
    40,
    32,
    20,
    12,
    8,
    4,
    4,
    2,
    2,
    2,
    1,
    1,
)  # by bits: 0 to 17, sum 256


def write(encoder: WideRangeEncoder, text: str) -> None:
    """Append any Unicode text. Raises UsageError for lone surrogates or more than MAX_TEXT_BYTES."""
    data = text_bytes(text)
    bits = len(data).bit_length()
    encoder.encode(*fixed_symbol(_SIZE_COUNTS, bits))
    if bits > 1:
        encoder.encode(len(data) - (1 << bits - 1), 1, 1 << bits - 1)
    for byte in data:
        encoder.encode(byte, 1, 256)


def read(decoder: WideRangeDecoder) -> str:
    """The text that ``write`` appended. Raises CorruptBitstream for what it cannot have written."""
    bits = read_fixed(decoder, _SIZE_COUNTS)
    size = bits and 1 << bits - 1
    if bits > 1:
        size += _uniform(decoder, 1 << bits - 1)
    if size > MAX_TEXT_BYTES:
        raise CorruptBitstream(f"a text of {size} bytes is longer than the limit of {MAX_TEXT_BYTES}")
    return bytes_text(bytes(_uniform(decoder, 256) for _ in range(size)))


def text_bytes(text: str) -> bytes:
    """UTF-8 of a text; UsageError for lone surrogates or more than MAX_TEXT_BYTES."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("the text holds half a surrogate pair, which is no character") from error
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"the text has {len(data)} bytes, more than the limit of {MAX_TEXT_BYTES}")
    return data


def bytes_text(data: bytes) -> str:
    """The text of UTF-8 bytes; CorruptBitstream if they are none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptBitstream("the text is no valid UTF-8") from error


def _uniform(decoder: WideRangeDecoder, total: int) -> int:
    value = decoder.target(total)
    decoder.advance(value, 1, total)
    return value
