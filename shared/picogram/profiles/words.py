# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Encoding with words, in three steps that may run in three places.

    pictures, captions ── prepare ──> [Prepared]     describe where nobody gave a caption, then code; needs Words
    picture, Prepared ── assemble ──> Encoded        the latent gets what the words leave of the budget
    Encoded ── recode ──> Encoded                    the words again, knowing the latent, if that is shorter

Words that a caller gave are kept whatever they cost. Words of a captioner are left out, with a warning and as a file of
profile ``base``, where there are none, where they are no good or where they take too much of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from picogram.bitstream import Picogram, parse, serialise
from picogram.errors import BudgetTooSmall, ModelError
from picogram.profiles import base
from picogram.profiles.recipes import BASE, Recipe
from picogram.semantics.description import Description
from picogram.semantics.words import TextSections, Words

MAX_WORDS_SHARE = 0.25
"""Of a byte budget, for words that no caller asked for."""


@dataclass(frozen=True)
class Prepared:
    """The words of one picture, coded. ``given``: by the caller, so they are never left out."""

    sections: TextSections = field(default_factory=TextSections)
    description: Description | None = None
    given: bool = False


@dataclass(frozen=True)
class Encoded:
    """A whole ``.pico`` file, what it says in words (None: nothing), and by section which coder wrote it."""

    data: bytes
    warnings: tuple[str, ...] = ()
    description: Description | None = None
    coders: dict[str, str] = field(default_factory=dict)


def prepare(
    pictures: Sequence[Image.Image], captions: Sequence[str | None], recipe: Recipe, words: Words
) -> list[Prepared]:
    """The words for RGB pictures; where the caption is None, the captioner's, or none with a warning.

    Raises UsageError for a caption that cannot be coded, ModelMissing and ModelDamaged if the captioner is needed.
    """
    given = [None if caption is None else Description(caption) for caption in captions]
    waiting = [index for index, description in enumerate(given) if description is None]
    found = _describe([pictures[index] for index in waiting], words, "objects" in recipe.sections)
    made = dict(zip(waiting, found, strict=True))
    wanted = [description or _useful(made[index][0], recipe) for index, description in enumerate(given)]
    coded = iter(words.code([description for description in wanted if description is not None]))
    return [
        Prepared(TextSections(warnings=(made[index][1],)))
        if description is None
        else Prepared(next(coded), description, given[index] is not None)
        for index, description in enumerate(wanted)
    ]


def assemble(
    picture: Image.Image, prepared: Prepared, recipe: Recipe, *, budget: int | None, rate: int
) -> Encoded:
    """The file of an RGB picture: within ``budget`` bytes, or without one at ``rate`` 0..255.

    Raises BudgetTooSmall, which names the smallest size that would do, if words that were given leave too little.
    """
    sections = prepared.sections
    words = {name: section for name, section in sections.optional.items() if name in recipe.sections}
    warnings = sections.warnings
    if not all(name in words for name in recipe.required):
        return Encoded(_file(picture, {}, BASE, budget, rate), warnings)
    cost = base.words_size(words)
    if budget is not None and not prepared.given and cost > MAX_WORDS_SHARE * budget:
        left_out = f"the caption would take {cost} of {budget} bytes and was left out"
        return Encoded(_file(picture, {}, BASE, budget, rate), (*warnings, left_out))
    try:
        data = _file(picture, words, recipe, budget, rate)
    except BudgetTooSmall:
        if prepared.given:
            raise
        left_out = f"the caption leaves too little of {budget} bytes for the picture and was left out"
        return Encoded(_file(picture, {}, BASE, budget, rate), (*warnings, left_out))
    coders = {name: coder for name, coder in sections.coders.items() if name in words}
    return Encoded(data, warnings, prepared.description, coders)


def recode(encoded: Encoded, words: Words) -> Encoded:
    """The same file with its caption coded in the context of its latent, if there is such a context and it helps."""
    file = parse(encoded.data)
    if encoded.description is None or "caption" not in file.optional:
        return encoded
    context = words.context(file.latent, file.header)
    if context is None:
        return encoded
    (sections,) = words.code([Description(encoded.description.caption)], [context])
    if sections.caption is None or len(sections.caption) >= len(file.optional["caption"]):
        return encoded
    shorter = Picogram(file.header, file.latent, file.optional | {"caption": sections.caption})
    return replace(encoded, data=serialise(shorter), coders=encoded.coders | sections.coders)


def _describe(
    pictures: Sequence[Image.Image], words: Words, objects: bool
) -> list[tuple[Description | None, str]]:
    """For each picture a description or None, and what to say if it is of no use."""
    if not pictures:
        return []
    try:
        nothing = "the captioner found no words: the file carries no caption"
        return [(description, nothing) for description in words.describe(pictures, objects)]
    except ModelError:  # models are missing or damaged, which the caller can mend
        raise
    except Exception as error:  # any captioner may be plugged in; a picture without words is better than none
        if len(pictures) > 1:  # one picture's failure is not the others'
            return [_describe([picture], words, objects)[0] for picture in pictures]
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [(None, f"the captioner failed ({reason}): the file carries no caption")]


def _useful(description: Description | None, recipe: Recipe) -> Description | None:
    """What of a captioner's description the profile carries; None if that is nothing."""
    if description is None or not description.caption.strip():
        return None
    return replace(description, objects=description.objects if "objects" in recipe.sections else ())


def _file(
    picture: Image.Image, words: dict[str, bytes], recipe: Recipe, budget: int | None, rate: int
) -> bytes:
    if budget is None:
        return base.encode_quality(picture, rate, recipe.profile, words)
    return base.encode_within(picture, budget, recipe.profile, words)
