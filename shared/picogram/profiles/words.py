# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Encoding with words, in two steps that may run in two places.

    pictures, [Given] ── prepare ──> [Prepared]      describe what nobody gave, then code all that may be written
    picture, Prepared ── assemble ──> Encoded        the latent gets what the words leave of the budget, and the hints

Words that a caller gave are kept whatever they cost. A captioner's share a twentieth of the budget: what is too much goes
in this order, with a warning each: the details of objects, the least sure object, the next, the caption. Where no words
are left, the file is one of profile ``base``.

Hints go to the encoder and not into the file: the caption that a guided profile's encoder listens to, and the focus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from picogram.errors import BudgetTooSmall, ModelError, ModelMissing
from picogram.latent.focus import Focus
from picogram.profiles import base
from picogram.profiles.hints import Hints
from picogram.profiles.recipes import BASE, Recipe
from picogram.semantics.description import MASK_SIDES, Description, Region
from picogram.semantics.words import TextSections, Words

MAX_WORDS_SHARE = 0.05
"""Of a byte budget, for words that no caller gave: up to there they cost a picture nothing measurable, and beyond
there is no sign that they would pay (docs/ablations.md)."""


@dataclass(frozen=True)
class Given:
    """What a caller says of a picture; None: the captioner may. ``focus``: words for what matters most, or where."""

    caption: str | None = None
    objects: Sequence[Region] | None = None
    focus: str | Focus | None = None


@dataclass(frozen=True)
class Choice:
    """Words that a file may carry, coded; perhaps none. ``lost``: what it lacks that the choice before had."""

    sections: TextSections = field(default_factory=TextSections)
    description: Description | None = None
    lost: str = ""

    @property
    def size(self) -> int:
        """Bytes that these words add to a file."""
        return base.words_size(self.sections.optional)


@dataclass(frozen=True)
class Prepared:
    """The words of one picture: ``choices`` from all words to those that a caller gave, perhaps none."""

    choices: tuple[Choice, ...] = (Choice(),)
    warnings: tuple[str, ...] = ()
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class Encoded:
    """A whole ``.pico`` file, what it says in words (None: nothing), and by section which coder wrote it.

    ``heard``: the caption that shaped it and is not in it.
    """

    data: bytes
    warnings: tuple[str, ...] = ()
    description: Description | None = None
    coders: dict[str, str] = field(default_factory=dict)
    heard: str | None = None


def prepare(
    pictures: Sequence[Image.Image], given: Sequence[Given], recipe: Recipe, words: Words
) -> list[Prepared]:
    """The words and hints for RGB pictures: what is given, and the captioner's for the rest, or none with a warning.

    Raises UsageError for a caption that cannot be coded, ModelMissing and ModelDamaged if a model is needed: the
    captioner for words that go into the file, the joint space for what is given for the encoder alone.
    """
    if recipe.sections:
        prepared = _written(pictures, given, recipe, words)
    elif recipe.guided:
        prepared = _guiding(pictures, given, words)
    else:
        prepared = [Prepared() for _ in pictures]
    return [
        replace(each, hints=replace(each.hints, focus=_focus(picture, said.focus, words)))
        for each, picture, said in zip(prepared, pictures, given, strict=True)
    ]


def _focus(picture: Image.Image, focus: str | Focus | None, words: Words) -> Focus | None:
    return words.place(picture, focus) if isinstance(focus, str) else focus


def _guiding(pictures: Sequence[Image.Image], given: Sequence[Given], words: Words) -> list[Prepared]:
    """Captions for the encoder: the caller's or the captioner's; none, with a warning, where there is no captioner."""
    captions = [each.caption for each in given]
    warnings: list[tuple[str, ...]] = [()] * len(given)
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
        Prepared(warnings=told, hints=Hints(caption, next(states)) if caption else Hints())
        for caption, told in zip(heard, warnings, strict=True)
    ]


def _written(
    pictures: Sequence[Image.Image], given: Sequence[Given], recipe: Recipe, words: Words
) -> list[Prepared]:
    if not recipe.max_objects:
        given = [replace(each, objects=()) for each in given]
    waiting = [i for i, each in enumerate(given) if each.caption is None or each.objects is None]
    objects = any(given[i].objects is None for i in waiting)
    found = _describe([pictures[i] for i in waiting], words, recipe.mask_sides[0] if objects else None)
    made = dict(zip(waiting, found, strict=True))
    outlines = [_outline(each, *made.get(i, (None, "")), recipe) for i, each in enumerate(given)]
    wanted = [description for steps, _ in outlines for description, _ in steps if description is not None]
    coded = iter(words.code(wanted))
    return [_prepared(steps, warnings, coded) for steps, warnings in outlines]


def assemble(
    picture: Image.Image,
    prepared: Prepared,
    recipe: Recipe,
    *,
    budget: int | None,
    rate: int,
    effort: int = 0,
    watch: base.Progress | None = None,
) -> Encoded:
    """The file of an RGB picture: within ``budget`` bytes, or without one at ``rate`` 0..255. ``watch``: see ``Order``.

    Raises BudgetTooSmall, which names the smallest size that would do, if words that were given leave too little.
    """
    warnings, shape = [*prepared.warnings], (prepared.hints, effort, watch)
    *optional, last = prepared.choices
    problem = ""
    for choice in optional:
        warnings += [f"{choice.lost} left out: {problem}"] if problem else []
        if budget is not None and choice.size - last.size > MAX_WORDS_SHARE * budget:
            problem = f"the words would take {choice.size} of {budget} bytes"
            continue
        try:
            return _encoded(picture, choice, recipe, budget, rate, warnings, *shape)
        except BudgetTooSmall:
            problem = f"the words leave too little of {budget} bytes for the picture"
    warnings += [f"{last.lost} left out: {problem}"] if problem else []
    return _encoded(picture, last, recipe, budget, rate, warnings, *shape)


Steps = list[tuple[Description | None, str]]
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
    given: Given, found: Description | None, problem: str, recipe: Recipe
) -> tuple[Steps, tuple[str, ...]]:
    """What may be written of a picture, and a warning where the captioner was asked for what it did not find."""
    seen = found or Description()
    caption = given.caption if given.caption is not None else seen.caption if seen.caption.strip() else ""
    objects = given.objects if given.objects is not None else seen.objects[: recipe.max_objects]
    missing = ["caption"] if given.caption is None and not caption else []
    missing += ["objects"] if given.objects is None and found is None else []
    warnings = (f"{problem}: the file carries no {' and no '.join(missing)}",) if missing else ()
    return list(_steps(Description(caption, tuple(objects)), given)), warnings


def _steps(full: Description, given: Given) -> Iterator[tuple[Description | None, str]]:
    def kept(some: Description) -> Description | None:
        return some if some.caption or some.objects or given.caption is not None else None

    yield kept(full), ""
    left = full
    if given.objects is None:
        if any(region.detail for region in left.objects):
            left = replace(left, objects=tuple(replace(region, detail="") for region in left.objects))
            yield left, "the details of objects were"
        for region in reversed(left.objects):
            left = replace(left, objects=left.objects[:-1])
            yield kept(left), f'the object "{region.name}" was'
    if given.caption is None and left.caption:
        yield kept(replace(left, caption="")), "the caption was"


def _prepared(steps: Steps, warnings: tuple[str, ...], coded: Iterator[TextSections]) -> Prepared:
    choices = [
        Choice(lost=lost) if description is None else Choice(next(coded), description, lost)
        for description, lost in steps
    ]
    return Prepared(tuple(choices), (*warnings, *choices[0].sections.warnings))


def _encoded(
    picture: Image.Image,
    choice: Choice,
    recipe: Recipe,
    budget: int | None,
    rate: int,
    warnings: Sequence[str],
    hints: Hints,
    effort: int,
    watch: base.Progress | None,
) -> Encoded:
    words = choice.sections.optional
    chosen = recipe if all(name in words for name in recipe.required) else BASE
    order = base.Order(chosen, words, hints, effort, watch)
    data = (
        base.encode_quality(picture, rate, order)
        if budget is None
        else base.encode_within(picture, budget, order)
    )
    return Encoded(data, tuple(warnings), choice.description, choice.sections.coders, hints.heard)
