# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a file may say of its photograph in words: a caption, and named objects with coarse masks.

    Description ── caption ─────────────────────────> the text of the caption section
                └─ objects ── names and details ────> "dog: black, wet; ball" ── the text of the objects section
                           └─ masks ────────────────> bits, coded beside that text

A caption is any Unicode text, control characters included, and survives as it is; ``printable`` makes a safe line of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from picogram.errors import CorruptBitstream, UsageError
from picogram.text.raw import MAX_CHARACTERS

MAX_CAPTION_CHARACTERS: Final = MAX_CHARACTERS
MAX_OBJECTS: Final = 8
MAX_NAME_CHARACTERS: Final = 100
MAX_DETAIL_CHARACTERS: Final = 1_000
MASK_SIDES: Final = (8, 16, 32, 64)

_BETWEEN_OBJECTS: Final = "; "
_BEFORE_DETAIL: Final = ": "
_LINE_CATEGORIES: Final = ("Cc", "Zl", "Zp")
# Joiners belong to emoji and to Persian and Indic spelling; all other format characters are invisible or turn text round.
_HARMLESS_FORMAT: Final = "\u200c\u200d"
_UNPRINTABLE: Final = (*_LINE_CATEGORIES, "Cf", "Cs")


@dataclass(frozen=True, eq=False)
class Region:
    """One object: its name, a detail (may be empty), and where it is.

    ``mask``: ``[S,S] bool``, S in MASK_SIDES, laid over the whole picture whatever its aspect; kept as a read-only copy.
    Raises UsageError for an empty or over-long name, an over-long detail, either with line breaks, control
    characters, lone surrogates, outer white space or a ";", a ":" in the name, or another shape of mask.
    """

    name: str
    detail: str
    mask: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("an object has no name")
        _check_phrase("name", self.name, MAX_NAME_CHARACTERS, ":;")
        _check_phrase("detail", self.detail, MAX_DETAIL_CHARACTERS, ";")
        mask = np.array(self.mask, order="C")
        if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
            raise UsageError(
                f"an object's mask must be a square of booleans, not {mask.dtype} {list(mask.shape)}"
            )
        if len(mask) not in MASK_SIDES:
            raise UsageError(f"an object's mask must have a side of 8, 16, 32 or 64, not {len(mask)}")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        same_words = (self.name, self.detail) == (other.name, other.detail)
        return same_words and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash((self.name, self.detail, self.mask.tobytes()))


@dataclass(frozen=True)
class Description:
    """A caption (may be empty) and up to MAX_OBJECTS objects, most important first.

    Raises UsageError for a caption of more than MAX_CAPTION_CHARACTERS or with lone surrogates, and for more objects.
    """

    caption: str = ""
    objects: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        _check_text("the caption", self.caption, MAX_CAPTION_CHARACTERS)
        if len(self.objects) > MAX_OBJECTS:
            raise UsageError(
                f"{len(self.objects)} objects are more than the {MAX_OBJECTS} that a file may hold"
            )


def objects_text(regions: Sequence[Region]) -> str:
    """Names and details on one line, ``name: detail; name; name: detail``; empty without regions."""
    phrases = (r.name + (_BEFORE_DETAIL + r.detail if r.detail else "") for r in regions)
    return _BETWEEN_OBJECTS.join(phrases)


def parse_objects_text(text: str, masks: Sequence[npt.NDArray[np.bool_]]) -> tuple[Region, ...]:
    """The inverse of ``objects_text``, given the masks in the same order.

    Raises CorruptBitstream for a text that ``objects_text`` cannot have written or another number of masks.
    """
    phrases = text.split(_BETWEEN_OBJECTS) if text else []
    if len(phrases) != len(masks):
        raise CorruptBitstream(f"the objects section names {len(phrases)} objects for {len(masks)} masks")
    regions = []
    for phrase, mask in zip(phrases, masks, strict=True):
        name, _, detail = phrase.partition(_BEFORE_DETAIL)
        try:
            regions.append(Region(name, detail, mask))
        except UsageError as error:
            raise CorruptBitstream(f"the objects section is damaged: {error}") from error
    if objects_text(regions) != text:
        raise CorruptBitstream("the objects section is damaged: a detail is missing")
    return tuple(regions)


def printable(text: str) -> str:
    """One line that is safe to show: ``\\n``, ``\\x1b``, ``\\u202e`` for what breaks lines, steers terminals or
    turns text round, and ``\\\\`` for a backslash, so that different texts never look the same.

    The result may hold any other Unicode; an HTTP header needs it encoded further.
    """
    return "".join(_escaped(c) if _is_unsafe(c) else c for c in text)


def _is_unsafe(character: str) -> bool:
    if character == "\\":
        return True
    return character not in _HARMLESS_FORMAT and unicodedata.category(character) in _UNPRINTABLE


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return character.encode("unicode_escape").decode("ascii")
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _check_text(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise UsageError(f"{what} has {len(text):,} characters, more than the limit of {limit:,}")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UsageError(f"{what} holds half a surrogate pair and is not valid Unicode")


def _check_phrase(what: str, text: str, limit: int, separators: str) -> None:
    """A name or a detail: one line without outer white space, so that the objects text can be taken apart again."""
    _check_text(f"an object's {what}", text, limit)
    if any(unicodedata.category(c) in _LINE_CATEGORIES for c in text):
        raise UsageError(f"an object's {what} holds a line break or another control character")
    if text != text.strip():
        raise UsageError(f"an object's {what} begins or ends with white space")
    for separator in separators:
        if separator in text:
            raise UsageError(f"an object's {what} may not hold {separator!r}")
