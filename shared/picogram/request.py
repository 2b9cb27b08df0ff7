# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an encoder and a decoder: two types, checked when they are made, for library, command line,
client, server and workers. The same value is refused with the same words wherever it comes in.

Each field says in its metadata (``Argument``) how it is offered: command line and server derive their options from that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from picogram.diffusion.stages import MAX_GUIDANCE, MAX_SEED
from picogram.errors import UsageError
from picogram.profiles.registry import DEFAULT_PROFILE, PROFILES, explained, profile_named
from picogram.profiles.spec import ProfileSpec
from picogram.ranges import check_number, check_whole, weights_map
from picogram.semantics.description import MAX_CAPTION_CHARACTERS, Description, Region
from picogram.semantics.plain import (
    MAX_JSON_CHARACTERS,
    check_focus_mask,
    mask_of,
    objects_of,
    plain_mask,
    plain_objects,
)

MOST_BYTES: Final = 2**40
BPP_RANGE: Final = (1e-6, 1e6)
MOST_QUALITY: Final = 100
DEFAULT_QUALITY: Final = 35.0
MAX_EFFORT: Final = 2
"""Of the encoder: 0 rounds, 1 and 2 search for better integers (``picogram.latent.effort``)."""
MAX_FOCUS_CHARACTERS: Final = 200
"""Of the words that say what matters most."""
MAX_STEPS: Final = 50
FocusSource = str | npt.ArrayLike
T = TypeVar("T")


@dataclass(frozen=True)
class Argument:
    """How an option is offered: ``kind`` of its values as text, one line of help, bounds, the longest text, an example.

    ``form``: it may be too long for a query. ``json``: it is a list, which travels as JSON, and is called so in errors.
    """

    name: str
    kind: type
    help: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    longest: int | None = None
    example: Any = None
    choices: tuple[str, ...] = ()
    form: bool = False
    json: str = ""
    short: str | None = None

    def value(self, text: object) -> object:
        """What a text says: the number, where one is wanted and is there; else the text, for the options to refuse."""
        for kind in {int: (int, float), float: (float,)}.get(self.kind, ()):
            with suppress(ValueError):
                return kind(text) if isinstance(text, str) else text
        return text


def _option(kind: type, help: str, default: Any = None, *more: Argument, **facts: Any) -> Any:
    """A field and how it is offered; ``more``: further arguments that fill it."""
    return dataclasses.field(default=default, metadata={"argument": (kind, help, facts), "more": more})


def arguments_of(options: type) -> tuple[Argument, ...]:
    """What ``EncodeOptions`` or ``DecodeOptions`` offers, in order."""
    found: list[Argument] = []
    for field in dataclasses.fields(options):
        kind, help, facts = field.metadata["argument"]
        found += [Argument(field.name, kind, help, field.default, **facts), *field.metadata["more"]]
    return tuple(found)


_FOCUS_MASK: Final = Argument(
    "focus_mask",
    str,
    "JSON: where it matters most, instead of words: the rows of a mask as objects have it, side 8, 16, 32 or 64, "
    "laid over the whole picture",
    longest=MAX_JSON_CHARACTERS,
    form=True,
    json="the rows of the focus mask",
)


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

    bytes: int | None = _option(int, "Largest size of the file", low=1, high=MOST_BYTES, example=800)
    bpp: float | None = _option(
        float, "Largest size in bits per pixel", low=BPP_RANGE[0], high=BPP_RANGE[1], example=0.04
    )
    quality: float | None = _option(
        float, "Quality instead of a size, 0 to 100", low=0, high=MOST_QUALITY, example=35, short="q"
    )
    profile: str = _option(
        str, f"What the file holds. {explained()}", DEFAULT_PROFILE, choices=tuple(PROFILES)
    )
    caption: str | None = _option(
        str,
        "The caption, instead of the captioner's; empty with taco: the encoder listens to none",
        longest=MAX_CAPTION_CHARACTERS,
        example="A lighthouse above a rocky shore.",
        form=True,
    )
    objects: Sequence[Region] | None = _option(
        str,
        "JSON: the objects for misc (up to 3, masks of side 8) or sedic (up to 8, masks of side 16, 32 or 64), as "
        "`/v1/describe` lists them, instead of the captioner's; `[]`: none",
        longest=MAX_JSON_CHARACTERS,
        form=True,
        json="the objects",
    )
    focus: FocusSource | None = _option(  # noqa: RUF009 - makes a field
        str,
        "Words for what matters most, in any profile: more of the bytes go there. They are not in the file",
        None,
        _FOCUS_MASK,
        longest=MAX_FOCUS_CHARACTERS,
        example="the red boat",
        form=True,
    )
    effort: int = _option(
        int,
        "1, 2: search longer for a better file of the same size; the format stays the same",
        0,
        low=0,
        high=MAX_EFFORT,
        example=1,
    )

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
        self.spec.check_words(self.caption, self.objects)
        if isinstance(self.focus, str):
            check_focus(self.focus)
        elif self.focus is not None:
            object.__setattr__(self, "focus", weights_map(self.focus))

    @property
    def spec(self) -> ProfileSpec:
        """Of the profile."""
        return profile_named(self.profile)

    @property
    def quality_or_default(self) -> float:
        """Where no size is asked for."""
        return DEFAULT_QUALITY if self.quality is None else self.quality

    def plain(self) -> dict[str, Any]:
        """For JSON; a focus map has to be a mask of side 8, 16, 32 or 64, else UsageError."""
        named = isinstance(self.focus, str)
        rows = None if self.focus is None or named else _rows(self.focus)
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        objects = None if self.objects is None else plain_objects(self.objects)
        return {
            **said,
            "objects": objects,
            "focus": self.focus if named else None,
            "focus_mask": rows,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> EncodeOptions:
        """The inverse of ``plain``, of which any field may be missing. Raises UsageError for what cannot be."""
        names = [field.name for field in dataclasses.fields(cls)]
        given = {name: plain[name] for name in names if plain.get(name) is not None}
        if "objects" in given:
            given["objects"] = objects_of(given["objects"])
        if plain.get("focus_mask") is not None:
            if "focus" in given:
                raise UsageError("give at most one of focus and focus_mask")
            mask = mask_of(plain["focus_mask"], "a focus mask")
            check_focus_mask(mask)
            given["focus"] = mask
        return cls(**given)


class DecodeArguments(TypedDict, total=False):
    """The fields of ``DecodeOptions``, as arguments of a call."""

    steps: int | None
    guidance: float | None
    seed: int


@dataclass(frozen=True)
class DecodeOptions:
    """How a picture is drawn; the same file and options give the same picture. Raises UsageError out of range.

    ``steps`` of the last pass: 0 to MAX_STEPS, 0 for the base picture; None: the profile's. ``guidance``: 0 to
    MAX_GUIDANCE, 1 for none; None: the profile's. ``seed``: 0 to MAX_SEED.
    """

    steps: int | None = _option(
        int,
        f"Steps of the last pass, 0 to {MAX_STEPS}; 0: the base picture, nothing imagined. Default: the profile's",
        low=0,
        high=MAX_STEPS,
        example=2,
    )
    guidance: float | None = _option(
        float,
        f"How closely words are followed, 0 to {MAX_GUIDANCE:g}; 1: no more than they come. Default: the profile's",
        low=0,
        high=MAX_GUIDANCE,
        example=2.0,
    )
    seed: int = _option(
        int, "Of what is imagined; the same gives the same picture", 0, low=0, high=MAX_SEED, example=7
    )

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_whole("steps", self.steps, 0, MAX_STEPS)
        if self.guidance is not None:
            check_number("guidance", self.guidance, 0, MAX_GUIDANCE)
        check_whole("seed", self.seed, 0, MAX_SEED)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> DecodeOptions:
        """The inverse of ``plain``, of which any field may be missing. Raises UsageError for what cannot be."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: plain[name] for name in names if plain.get(name) is not None})


def check_focus(words: str) -> None:
    """UsageError for words that name nothing."""
    if not words.strip():
        raise UsageError("the focus has no words")
    if len(words) > MAX_FOCUS_CHARACTERS:
        raise UsageError(f"the focus has {len(words):,} characters; it may have {MAX_FOCUS_CHARACTERS}")
    Description(words)


def options_of(kind: type[T], options: T | None, arguments: Mapping[str, Any], verb: str) -> T:
    """Options of that kind, whichever way they were given. Raises UsageError for both ways at once, TypeError for
    arguments that there are not.
    """
    if options is None:
        names = {argument.name for argument in arguments_of(kind)} - {"focus_mask"}
        if unknown := sorted(set(arguments) - names):
            raise TypeError(f"{verb} has no argument {unknown[0]!r}")
        return kind(**arguments)
    if arguments:
        raise UsageError(f"give {min(arguments)} within the options")
    return options


def _rows(weights: npt.ArrayLike) -> list[str]:
    cells = np.asarray(weights)
    if not np.isin(cells, (0, 1)).all():
        raise UsageError("a server takes a focus mask of zeros and ones, not weights between them")
    rows = plain_mask(cells.astype(np.bool_))
    mask_of(rows, "a focus mask")
    return rows
