# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which workers a request visits, in which order: the profile or the file says whether there are words to deal with.

encode, base        encoder
encode, with words  lmm:code ── encoder ── lmm:recode
decode              [lmm:read] ── decoder
inspect             [lmm:read] ── inspector
describe            lmm:describe
"""

from __future__ import annotations

from typing import Final

from picogram.bitstream import parse
from picogram.errors import PicogramError

Route = tuple[str, ...]
DESCRIBE: Final[Route] = ("lmm:describe",)


def encode_route(profile: str) -> Route:
    """Words are written before the latent, which gets what they leave of the budget, and once more knowing the latent."""
    return ("encoder",) if profile == "base" else ("lmm:code", "encoder", "lmm:recode")


def decode_route(data: bytes) -> Route:
    """The words come first, for a decoder may draw by them."""
    return ("lmm:read", "decoder") if _has_words(data) else ("decoder",)


def inspect_route(data: bytes) -> Route:
    """Only a file with words needs more than its header."""
    return ("lmm:read", "inspector") if _has_words(data) else ("inspector",)


def _has_words(data: bytes) -> bool:
    """Also of damaged ones; a file that cannot be parsed has none, and the last worker will say why."""
    try:
        file = parse(data)
    except PicogramError:
        return False
    return bool(file.optional or file.damaged)
