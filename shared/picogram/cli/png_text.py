# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Text inside PNG files: iTXt chunks, which hold UTF-8."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

_END_OF_HEADER = 8 + 4 + 4 + 13 + 4  # signature; length, type, data and CRC of IHDR


def with_text(png: bytes, entries: Mapping[str, str]) -> bytes:
    """A PNG file with an iTXt chunk for each entry; keys are ASCII, and NUL, which iTXt cannot hold, is replaced."""
    chunks = b"".join(_chunk(key, text) for key, text in entries.items())
    return png[:_END_OF_HEADER] + chunks + png[_END_OF_HEADER:]


def _chunk(key: str, text: str) -> bytes:
    # Behind the keyword: not compressed, method 0, no language, no translated keyword.
    data = key.encode("ascii") + bytes(5) + text.replace("\0", "\ufffd").encode("utf-8")
    body = b"iTXt" + data
    return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
