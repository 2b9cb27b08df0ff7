# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Accept negotiation (RFC 9110, section 12.5.1) among the image types the decoder writes."""

from __future__ import annotations

from collections.abc import Sequence

from picogram_gateway.problems import ProblemError


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that the caller wants most; ties go to the first one offered.

    Raises a 406 problem when nothing offered is acceptable.
    """
    ranges = _parse(accept or "*/*")
    best, best_quality = None, 0.0
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = media_type, quality
    if best is None:
        detail = f"cannot answer with {accept!r}; choose from {', '.join(offered)}"
        raise ProblemError(406, "not-acceptable", "Not acceptable", detail, offered=list(offered))
    return best


def _parse(accept: str) -> dict[str, float]:
    """Media range to quality; what cannot be read counts as not acceptable."""
    ranges = {}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = _number(value.strip())
        if name:
            ranges[name] = quality
    return ranges


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The quality of the most specific range that matches."""
    for name in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
