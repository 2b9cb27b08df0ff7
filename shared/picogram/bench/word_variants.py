# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The words of an ablation: right ones, none, another picture's, and right ones with a part of them wrong or missing.

pictures ── captioner, or a table of captions ──> {name: Found}
one picture's and the others' Found ── variants ──> what its file says, and what it is drawn by
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from picogram.errors import UsageError
from picogram.profiles.spec import ProfileSpec
from picogram.semantics.description import MASK_SIDES, Description, Region
from picogram.semantics.words import Words

BASE, DRAWN, CORRECT, EMPTY, SHUFFLED = "base", "no words", "correct", "empty", "shuffled"
IGNORED, MISLED = "ignored", "shuffled when drawn"
CAPTION_ONLY, OTHER_MAPS, NAMES_ONLY = "caption only", "other maps", "names only"
MEANING = {
    BASE: "no words in the file, nothing drawn: the base picture",
    DRAWN: "no words in the file, drawn with the profile's steps",
    CORRECT: "the picture's own caption and objects",
    EMPTY: "an empty caption, no objects",
    SHUFFLED: "another picture's caption, and other pictures' objects inside its own masks",
    IGNORED: "the file of `correct`, drawn as if its words were empty: what the bytes cost",
    MISLED: "the file of `correct`, drawn by the words of `shuffled`: what drawing by words does",
    CAPTION_ONLY: "its own caption, no objects",
    OTHER_MAPS: "its own words with the masks of other pictures' objects",
    NAMES_ONLY: "its own words without the objects' details",
}
_BATCH = 8
_NAME, _TEXT = "image_name", "overall_description"


@dataclass(frozen=True)
class Found:
    """What is known of a picture; objects by the side of their masks."""

    caption: str
    objects: Mapping[int, tuple[Region, ...]] = field(default_factory=dict)

    def description(self, spec: ProfileSpec) -> Description:
        """As a file of that profile would say it."""
        if not spec.max_objects:
            return Description(self.caption)
        return Description(self.caption, self.objects.get(spec.mask_sides[0], ())[: spec.max_objects])


@dataclass(frozen=True)
class Variant:
    """``said``: in the file, None for profile base. ``drawn``: by which it is drawn. ``imagined``: if it is at all."""

    name: str
    said: Description | None
    drawn: Description | None
    imagined: bool = True


def find(
    paths: Sequence[Path],
    read: Callable[[Path], Image.Image],
    specs: Sequence[ProfileSpec],
    words: Words,
    captions: Mapping[str, str] | None = None,
) -> dict[str, Found]:
    """The words of all pictures by file name; ``captions`` take the place of the captioner's.

    Pictures are held a batch at a time. Raises ModelMissing and ModelDamaged.
    """
    sides = sorted({spec.mask_sides[0] for spec in specs if spec.max_objects})
    found: dict[str, Found] = {}
    for start in range(0, len(paths), _BATCH):
        batch = {path.name: read(path) for path in paths[start : start + _BATCH]}
        found |= _describe(batch, sides, words, captions)
    return found


def _describe(
    batch: Mapping[str, Image.Image],
    sides: Sequence[int],
    words: Words,
    captions: Mapping[str, str] | None,
) -> dict[str, Found]:
    if captions is not None and not sides:
        return {name: Found(captions[name]) for name in batch}
    first, *more = sides or MASK_SIDES[:1]
    seen = dict(zip(batch, words.describe(list(batch.values()), bool(sides), first), strict=True))
    objects = {name: {first: seen[name].objects} for name in batch}
    named = [
        name for name in batch if seen[name].objects
    ]  # the same at every side, so others need no second look
    for side in more if named else ():
        again = words.describe([batch[name] for name in named], True, side)
        for name, description in zip(named, again, strict=True):
            objects[name][side] = description.objects
    return {
        name: Found(seen[name].caption if captions is None else captions[name], objects[name])
        for name in batch
    }


def read_captions(table: Path, names: Sequence[str]) -> dict[str, str]:
    """Captions of pictures from a CSV file with the columns image_name and overall_description.

    Raises UsageError for a file that cannot be read, lacks a column or lacks one of ``names``.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = {row[_NAME]: (row[_TEXT] or "").strip() for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table} cannot be read: {error}") from error
    except KeyError as error:
        raise UsageError(f"{table} has no column {error}") from error
    missing = [name for name in names if name not in rows]
    if missing:
        raise UsageError(f"{table} has no caption of {missing[0]}")
    return {name: rows[name] for name in names}


def variants(name: str, found: Mapping[str, Found], spec: ProfileSpec) -> list[Variant]:
    """All that is tried with one picture in one profile, the base picture first.

    Raises UsageError if no other picture has another caption.
    """
    own = found[name].description(spec)
    others = [found[other].description(spec) for other in donors(name, found)]
    wrong, nothing = shuffled(own, others), Description()
    made = [
        Variant(BASE, None, None, imagined=False),
        Variant(DRAWN, None, None),
        Variant(CORRECT, own, own),
        Variant(EMPTY, nothing, nothing),
        Variant(SHUFFLED, wrong, wrong),
        Variant(IGNORED, own, nothing),
        Variant(MISLED, own, wrong),
    ]
    if spec.max_objects:
        alone, moved, spare = Description(own.caption), other_maps(own, others), _names_only(own)
        made += [
            Variant(CAPTION_ONLY, alone, alone),
            Variant(OTHER_MAPS, moved, moved),
            Variant(NAMES_ONLY, spare, spare),
        ]
    return made


def donors(name: str, found: Mapping[str, Found]) -> list[str]:
    """The other pictures, first the one whose caption ``name`` gets where words are shuffled.

    That lies half the set further on, or after, and has a caption, another one. UsageError if there is none.
    """
    names = list(found)
    here = names.index(name) + max(1, len(names) // 2)
    others = [other for n in range(len(names)) if (other := names[(here + n) % len(names)]) != name]
    for n, other in enumerate(others):
        if found[other].caption and found[other].caption != found[name].caption:
            return others[n:] + others[:n]
    raise UsageError(f"no other picture has a caption that is not that of {name}: add other pictures")


def shuffled(own: Description, others: Sequence[Description]) -> Description:
    """The first other's caption, and others' names and details inside the picture's own masks."""
    known = {(region.name, region.detail) for region in own.objects}
    pool = [r for r in _objects(others) if (r.name, r.detail) not in known]
    return Description(
        others[0].caption,
        tuple(
            replace(region, name=other.name, detail=other.detail)
            for region, other in zip(own.objects, cycle(pool), strict=False)
        ),
    )


def other_maps(own: Description, others: Sequence[Description]) -> Description:
    """The picture's own words, the masks of others' objects; as it is if no other has objects."""
    masks = [r.mask for r in _objects(others) if not any(np.array_equal(r.mask, o.mask) for o in own.objects)]
    if not masks:
        return own
    moved = zip(own.objects, cycle(masks), strict=False)
    return replace(own, objects=tuple(replace(region, mask=mask) for region, mask in moved))


def _names_only(own: Description) -> Description:
    return replace(own, objects=tuple(replace(region, detail="") for region in own.objects))


def _objects(descriptions: Sequence[Description]) -> Iterator[Region]:
    for description in descriptions:
        yield from description.objects
