# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The first step of encoding: what may be written of a picture in words, and what its encoder is to hear.

    pictures, [EncodeOptions] ── prepare ──> [PreparedWords]     describe what nobody gave, code what may be written

Words that a caller gave are kept whatever they cost. Of a captioner's, what is too much goes later, in this order: the
details of objects, the least sure object, the next, the caption (``picogram.pipeline.assemble``).
Hints go to the encoder and not into the file: the caption that a guided profile's encoder listens to, and the focus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.bitstream.container import write_varint
from picogram.errors import ModelError, ModelMissing
from picogram.profiles.spec import ProfileSpec
from picogram.request import EncodeOptions
from picogram.semantics.description import MASK_SIDES, Description
from picogram.semantics.words import TextSections, Words

if TYPE_CHECKING:
    from picogram.latent.focus import Focus
    from picogram.latent.guide import Guide


States = npt.NDArray[np.float16]
"""``[T, W]``: what the language model makes of a caption's tokens."""


@dataclass(frozen=True)
class Hints:
    """What shapes the encoding of a picture and is not in its file.

    ``heard``: the caption that ``states`` are of; ``focus``: where the picture matters most.
    """

    heard: str | None = None
    states: States | None = None
    focus: Focus | None = None

    def guide(self) -> Guide | None:
        """For one picture."""
        if self.states is None:
            return None
        import torch

        from picogram.latent.guide import Guide

        states = torch.from_numpy(self.states).float()[None]
        return Guide(states, torch.ones(1, len(self.states), dtype=torch.bool))


@dataclass(frozen=True)
class WordsVariant:
    """Words that a file may carry, coded; perhaps none. ``lost``: what it lacks that the variant before had."""

    sections: TextSections = field(default_factory=TextSections)
    description: Description | None = None
    lost: str = ""

    @property
    def size(self) -> int:
        """Bytes that these words add to a file, the sections' lengths in its header included."""
        return sections_size(self.sections.optional)


@dataclass(frozen=True)
class PreparedWords:
    """The words of one picture: ``variants`` from all words to those that a caller gave, perhaps none."""

    variants: tuple[WordsVariant, ...] = (WordsVariant(),)
    warnings: tuple[str, ...] = ()
    hints: Hints = field(default_factory=Hints)


def prepare(
    pictures: Sequence[Image.Image], asked: Sequence[EncodeOptions], words: Words
) -> list[PreparedWords]:
    """The words and hints for RGB pictures, all of one profile: what is given, and the captioner's for the rest, or none
    with a warning.

    Raises UsageError for a caption that cannot be coded, ModelMissing and ModelDamaged if a model is needed: the
    captioner for words that go into the file, the joint space for what is given for the encoder alone.
    """
    if not asked:
        return []
    spec = asked[0].spec
    if spec.sections:
        prepared = _written(pictures, asked, spec, words)
    elif spec.guided:
        prepared = _guiding(pictures, asked, words)
    else:
        prepared = [PreparedWords() for _ in pictures]
    return [
        replace(each, hints=replace(each.hints, focus=words.place(picture, options.focus)))
        if isinstance(options.focus, str)
        else each
        for each, picture, options in zip(prepared, pictures, asked, strict=True)
    ]


def _guiding(
    pictures: Sequence[Image.Image], asked: Sequence[EncodeOptions], words: Words
) -> list[PreparedWords]:
    """Captions for the encoder: the caller's or the captioner's; none, with a warning, where there is no captioner."""
    captions = [each.caption for each in asked]
    warnings: list[tuple[str, ...]] = [()] * len(asked)
    waiting = [i for i, caption in enumerate(captions) if caption is None]
    try:
        found = _describe([pictures[i] for i in waiting], words, None)
    except ModelMissing as error:
        found = [(None, str(error))] * len(waiting)
    for i, (description, problem) in zip(waiting, found, strict=True):
        captions[i] = description.caption if description else ""
        if not (captions[i] or "").strip():
            warnings[i] = (f"{problem}: coded from the picture alone",)
    heard = [caption if caption and caption.strip() else None for caption in captions]
    states = iter(words.hear([caption for caption in heard if caption]))
    return [
        PreparedWords(warnings=told, hints=Hints(caption, next(states)) if caption else Hints())
        for caption, told in zip(heard, warnings, strict=True)
    ]


def _written(
    pictures: Sequence[Image.Image], asked: Sequence[EncodeOptions], spec: ProfileSpec, words: Words
) -> list[PreparedWords]:
    if not spec.max_objects:
        asked = [replace(each, objects=()) for each in asked]
    waiting = [i for i, each in enumerate(asked) if each.caption is None or each.objects is None]
    objects = any(asked[i].objects is None for i in waiting)
    found = _describe([pictures[i] for i in waiting], words, spec.mask_sides[0] if objects else None)
    made = dict(zip(waiting, found, strict=True))
    outlines = [_outline(each, *made.get(i, (None, "")), spec) for i, each in enumerate(asked)]
    wanted = [description for steps, _ in outlines for description, _ in steps if description is not None]
    coded = iter(words.code(wanted))
    return [_prepared(steps, warnings, coded) for steps, warnings in outlines]


def sections_size(sections: Mapping[str, bytes]) -> int:
    """Bytes that sections add to a file, their lengths in its header included."""
    return sum(len(write_varint(len(section))) + len(section) for section in sections.values())


_Steps = list[tuple[Description | None, str]]
"""Descriptions from the fullest to the sparest (None: no words), each with what it lost."""


def _describe(
    pictures: Sequence[Image.Image], words: Words, side: int | None
) -> list[tuple[Description | None, str]]:
    """For each picture a description or None, and what to say if it is of no use.

    ``side``: of the objects' masks; None: no objects are needed.
    """
    if not pictures:
        return []
    try:
        described = words.describe(pictures, side is not None, side or MASK_SIDES[0])
        return [(description, "the captioner found no words") for description in described]
    except ModelError:  # models are missing or damaged, which the caller can mend
        raise
    except Exception as error:  # any captioner may be plugged in; a picture without words is better than none
        if len(pictures) > 1:  # one picture's failure is not the others'
            return [_describe([picture], words, side)[0] for picture in pictures]
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [(None, f"the captioner failed ({reason})")]


def _outline(
    asked: EncodeOptions, found: Description | None, problem: str, spec: ProfileSpec
) -> tuple[_Steps, tuple[str, ...]]:
    """What may be written of a picture, and a warning where the captioner was asked for what it did not find."""
    seen = found or Description()
    caption = asked.caption if asked.caption is not None else seen.caption if seen.caption.strip() else ""
    objects = asked.objects if asked.objects is not None else seen.objects[: spec.max_objects]
    missing = ["caption"] if asked.caption is None and not caption else []
    missing += ["objects"] if asked.objects is None and found is None else []
    warnings = (f"{problem}: the file carries no {' and no '.join(missing)}",) if missing else ()
    return list(_steps(Description(caption, tuple(objects)), asked)), warnings


def _steps(full: Description, asked: EncodeOptions) -> Iterator[tuple[Description | None, str]]:
    def kept(some: Description) -> Description | None:
        return some if some.caption or some.objects or asked.caption is not None else None

    yield kept(full), ""
    left = full
    if asked.objects is None:
        if any(region.detail for region in left.objects):
            left = replace(left, objects=tuple(replace(region, detail="") for region in left.objects))
            yield left, "the details of objects were"
        for region in reversed(left.objects):
            left = replace(left, objects=left.objects[:-1])
            yield kept(left), f'the object "{region.name}" was'
    if asked.caption is None and left.caption:
        yield kept(replace(left, caption="")), "the caption was"


def _prepared(steps: _Steps, warnings: tuple[str, ...], coded: Iterator[TextSections]) -> PreparedWords:
    variants = [
        WordsVariant(lost=lost) if description is None else WordsVariant(next(coded), description, lost)
        for description, lost in steps
    ]
    return PreparedWords(tuple(variants), (*warnings, *variants[0].sections.warnings))
