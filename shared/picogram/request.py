# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an encoder: one type, checked when it is made, for library, command line, client, server and
workers. The same value is refused with the same words wherever it comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from picogram.errors import UsageError
from picogram.jobs.words import check_focus_mask, mask_of, objects_of, plain_mask, plain_objects
from picogram.profiles.recipes import MAX_EFFORT, Recipe, check_focus, check_words, recipe_to_write
from picogram.ranges import check_number, check_whole, weights_map
from picogram.semantics.description import Region

MOST_BYTES: Final = 2**40
BPP_RANGE: Final = (1e-6, 1e6)
MOST_QUALITY: Final = 100
FocusSource = str | npt.ArrayLike


class EncodeArguments(TypedDict, total=False):
    """The fields of ``EncodeOptions``, as arguments of a call."""

    bytes: int | None
    bpp: float | None
    quality: float | None
    profile: str
    caption: str | None
    objects: Sequence[Region] | None
    focus: FocusSource | None
    effort: int


@dataclass(frozen=True, eq=False)
class EncodeOptions:
    """How small or how good, with which words, what matters most, how long to search. Raises UsageError or
    UnsupportedProfile for what cannot be.

    At most one of ``bytes`` and ``bpp`` (of the whole file and per original pixel, never exceeded) and ``quality`` (0 to
    100); none: quality 35. ``caption``, ``objects``: those of the profile's words, None for what the captioner finds.
    ``focus``: words for what matters most, or weights 0..1 over the picture, ``[h, w]``. ``effort``: 0 to 2.
    """

    bytes: int | None = None
    bpp: float | None = None
    quality: float | None = None
    profile: str = "base"
    caption: str | None = None
    objects: Sequence[Region] | None = None
    focus: FocusSource | None = None
    effort: int = 0

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.bytes, self.bpp, self.quality)) > 1:
            raise UsageError("give at most one of bytes, bpp and quality")
        if self.bytes is not None:
            check_whole("bytes", self.bytes, 1, MOST_BYTES)
        if self.bpp is not None:
            check_number("bpp", self.bpp, *BPP_RANGE)
        if self.quality is not None:
            check_number("quality", self.quality, 0, MOST_QUALITY)
        check_whole("effort", self.effort, 0, MAX_EFFORT)
        check_words(self.recipe, self.caption, self.objects)
        if isinstance(self.focus, str):
            check_focus(self.focus)
        elif self.focus is not None:
            object.__setattr__(self, "focus", weights_map(self.focus))

    @property
    def recipe(self) -> Recipe:
        """Of the profile."""
        return recipe_to_write(self.profile)

    def plain(self) -> dict[str, Any]:
        """For JSON; a focus map has to be a mask of side 8, 16, 32 or 64, else UsageError."""
        words = self.focus if isinstance(self.focus, str) else None
        rows = None if self.focus is None or words is not None else _rows(self.focus)
        return {
            "bytes": self.bytes,
            "bpp": self.bpp,
            "quality": self.quality,
            "profile": self.profile,
            "caption": self.caption,
            "objects": None if self.objects is None else plain_objects(self.objects),
            "focus": words,
            "focus_mask": rows,
            "effort": self.effort,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> EncodeOptions:
        """The inverse of ``plain``, of which any field may be missing. Raises UsageError for what cannot be."""
        given = {name: plain[name] for name in _DIRECT if plain.get(name) is not None}
        if plain.get("objects") is not None:
            given["objects"] = objects_of(plain["objects"])
        if plain.get("focus_mask") is not None:
            if "focus" in given:
                raise UsageError("give at most one of focus and focus_mask")
            mask = mask_of(plain["focus_mask"], "a focus mask")
            check_focus_mask(mask)
            given["focus"] = mask
        return cls(**given)


_DIRECT: Final = ("bytes", "bpp", "quality", "profile", "caption", "focus", "effort")


def _rows(weights: npt.ArrayLike) -> list[str]:
    cells = np.asarray(weights)
    if not np.isin(cells, (0, 1)).all():
        raise UsageError("a server takes a focus mask of zeros and ones, not weights between them")
    rows = plain_mask(cells.astype(np.bool_))
    mask_of(rows, "a focus mask")
    return rows


def options_of(options: EncodeOptions | None, arguments: EncodeArguments) -> EncodeOptions:
    """Whichever of both was given. Raises UsageError for both, and for arguments that there are not."""
    if options is None:
        if unknown := sorted(set(arguments) - EncodeArguments.__annotations__.keys()):
            raise TypeError(f"encode has no argument {unknown[0]!r}")
        return EncodeOptions(**arguments)
    if arguments:
        raise UsageError(f"give {min(arguments)} within the options")
    return options
