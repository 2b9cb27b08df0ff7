# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which workers a request visits, in which order: the profile, what is asked for or the file says whether there are words
to deal with.

encode     [lmm:code] ── encoder      lmm for words: those in the file, and those that shape it and are not in it
decode     [lmm:read] ── decoder
inspect    [lmm:read] ── inspector
describe   lmm:describe
reference  inspector:reference
"""

from __future__ import annotations

from typing import Final

from picogram.bitstream import Picogram
from picogram.profiles.recipes import recipe_to_write

Route = tuple[str, ...]
DESCRIBE: Final[Route] = ("lmm:describe",)
REFERENCE: Final[Route] = ("inspector:reference",)


def encode_route(profile: str, caption: str | None = None, focus: str | None = None) -> Route:
    """Words are written before the latent, which gets what they leave of the budget.

    Where the file has none, a caption that guides the encoder and words that name what matters most are dealt with
    before it. ``caption``: None for the captioner's, "" for none.
    """
    recipe = recipe_to_write(profile)
    listens = recipe.guided and (caption is None or bool(caption.strip()))
    return ("lmm:code", "encoder") if recipe.sections or listens or focus else ("encoder",)


def decode_route(file: Picogram) -> Route:
    """The words come first, for a decoder may draw by them."""
    return ("lmm:read", "decoder") if _has_words(file) else ("decoder",)


def inspect_route(file: Picogram) -> Route:
    """Only a file with words needs more than its header."""
    return ("lmm:read", "inspector") if _has_words(file) else ("inspector",)


def _has_words(file: Picogram) -> bool:
    """Also damaged ones: whoever reads them says so."""
    return bool(file.optional or file.damaged)
