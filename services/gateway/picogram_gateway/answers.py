# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From a result to a response: the bytes, and headers that say what they cost, what they show and what went wrong."""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote

from fastapi import Response

from picogram.bitstream import parse
from picogram.bitstream.container import OPTIONAL, section_sizes
from picogram.jobs import Result
from picogram.semantics.description import printable
from picogram_gateway.kinds import Kind

MAX_CAPTION_HEADER: Final = 4096
"""Bytes of a caption's header; most servers and proxies take lines of 8 KiB."""
_ATTRIBUTE_CHARACTERS: Final = "!#$&+^`|"
"""What RFC 8187 leaves as it is, beyond what ``quote`` does anyway."""


def render(kind: Kind, result: Result) -> Response:
    """The answer to a request of that kind."""
    if kind == "encode":
        return respond_with_file(result)
    if kind == "decode":
        return respond(result, {"Vary": "Accept"})
    if kind == "reference":
        return respond(
            result, _size(len(result.payload), result.metadata["width"], result.metadata["height"])
        )
    return respond(result, caption=False)


def respond(result: Result, headers: dict[str, str] | None = None, caption: bool = True) -> Response:
    """The result's bytes, its size in pixels, how it was drawn and its caption where known, warnings, and where the time
    went.
    """
    headers = dict(headers or {})
    for name in ("width", "height", "steps", "seed"):
        if name in result.metadata:
            headers[f"X-Picogram-{name.title()}"] = str(result.metadata[name])
    description = result.metadata.get("description")
    if caption and description:
        headers["X-Picogram-Caption"] = caption_header(description["caption"])
    headers["Server-Timing"] = ", ".join(f"{n};dur={1000 * s:.1f}" for n, s in result.timings.items())
    response = Response(result.payload, headers=headers, media_type=result.media_type)
    for warning in result.warnings:
        response.headers.append("X-Picogram-Warning", _ascii(warning))
    return response


def respond_with_file(result: Result) -> Response:
    """A fresh .pico file, which caption shaped it, and where its bytes went: header (checksum included) and sections add
    up to all of them.
    """
    data = result.payload
    file = parse(data)
    sizes = {name: 0 for name in ("latent", *OPTIONAL)} | section_sizes(data)
    sizes["header"] = len(data) - sum(sizes.values())
    headers = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
        **_size(len(data), file.header.width, file.header.height),
    }
    headers |= {f"X-Picogram-{name.title()}-Bytes": str(size) for name, size in sizes.items()}
    if heard := result.metadata.get("heard"):
        headers["X-Picogram-Heard"] = caption_header(heard)
    return respond(result, headers, caption="caption" in file.optional)


def _size(size: int, width: int, height: int) -> dict[str, str]:
    return {
        "X-Picogram-Bytes": str(size),
        "X-Picogram-Bpp": f"{8 * size / (width * height):.6f}",
        "X-Picogram-Width": str(width),
        "X-Picogram-Height": str(height),
    }


def caption_header(caption: str) -> str:
    """Percent-encoded UTF-8; what would be too long for a header ends in an encoded "…"."""
    ellipsis = quote("…")
    parts, size = [], 0
    for character in caption:
        parts.append(quote(character, safe=_ATTRIBUTE_CHARACTERS))
        size += len(parts[-1])
        if size > MAX_CAPTION_HEADER:
            while size > MAX_CAPTION_HEADER - len(ellipsis):
                size -= len(parts.pop())
            return "".join(parts) + ellipsis
    return "".join(parts)


def _ascii(text: str) -> str:
    """One line that any HTTP client can read."""
    return printable(text).encode("ascii", "backslashreplace").decode()
