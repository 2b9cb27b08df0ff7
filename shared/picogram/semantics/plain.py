# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Descriptions and masks as plain values, which JSON and any job queue can carry.

Description <-> {"caption": "...", "objects": [{"name": "dog", "detail": "wet", "mask": ["..##....", ...]}]}
focus mask  <-> ["..##....", ...]

The list of objects and the focus mask are also what callers send; ``objects_of`` and ``mask_of`` trust nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from picogram.errors import UsageError
from picogram.semantics.description import MASK_SIDES, MAX_OBJECTS, Description, Region

MAX_JSON_CHARACTERS: Final = 128 * 1024
"""Of a list of objects, some of whose characters may be escaped."""
Mask = npt.NDArray[np.bool_]
"""``[S, S]``, S in MASK_SIDES, laid over the whole picture."""
_MARKS = ".#"
"""A cell outside and inside a mask."""
_FIELDS = ("name", "detail", "mask")


def plain_description(description: Description) -> dict[str, Any]:
    """Caption and objects; a mask is a list of rows from the top, with ``#`` where the object is."""
    return {"caption": description.caption, "objects": plain_objects(description.objects)}


def plain_objects(objects: Sequence[Region]) -> list[dict[str, Any]]:
    """The objects of ``plain_description``."""
    return [
        {
            "name": region.name,
            "detail": region.detail,
            "mask": plain_mask(region.mask),
        }
        for region in objects
    ]


def plain_mask(mask: Mask) -> list[str]:
    """Its rows from the top, with ``#`` where it is set."""
    return ["".join(_MARKS[cell] for cell in row) for row in mask.astype(int).tolist()]


def description_of(plain: Mapping[str, Any]) -> Description:
    """The inverse of ``plain_description``. Raises UsageError for what a description cannot hold."""
    return Description(plain["caption"], objects_of(plain["objects"]))


def objects_of(plain: object) -> tuple[Region, ...]:
    """The inverse of ``plain_objects``; a detail may be missing. Raises UsageError for anything else."""
    if not isinstance(plain, list):
        raise UsageError("objects are a list")
    if len(plain) > MAX_OBJECTS:
        raise UsageError(f"{len(plain)} objects are more than the {MAX_OBJECTS} that a file may hold")
    return tuple(_region(each) for each in plain)


def objects_of_json(text: str | bytes) -> tuple[Region, ...]:
    """Objects from the JSON of their list. Raises UsageError for anything else."""
    return objects_of(read_json(text, "the objects"))


def mask_of(rows: object, what: str = "a mask") -> Mask:
    """The inverse of ``plain_mask``. Raises UsageError for anything else, which it calls ``what``."""
    if not isinstance(rows, list) or not all(isinstance(row, str) and not row.strip(_MARKS) for row in rows):
        raise UsageError(f"{what} is a list of rows of '.' and '#'")
    if len(rows) not in MASK_SIDES or any(len(row) != len(rows) for row in rows):
        raise UsageError(f"{what} has as many columns as rows: 8, 16, 32 or 64")
    return np.array([[cell == _MARKS[1] for cell in row] for row in rows], dtype=np.bool_)


def check_focus_mask(mask: Mask) -> None:
    """UsageError where nothing, or everything, is said to matter most."""
    if mask.all() or not mask.any():
        raise UsageError("the focus mask tells nothing: all of its cells are the same")


def read_json(text: str | bytes, what: str) -> object:
    """Plain values that a caller sent as JSON. Raises UsageError for anything else, which it calls ``what``."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise UsageError(f"{what} have more than {MAX_JSON_CHARACTERS:,} characters of JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{what} are not JSON: {reason}") from error


def _region(plain: object) -> Region:
    if not isinstance(plain, dict):
        raise UsageError("an object is a JSON object with name, detail and mask")
    if strange := set(plain) - set(_FIELDS):
        raise UsageError(f"an object has no {min(strange)[:40]!r}, only name, detail and mask")
    name, detail = plain.get("name"), plain.get("detail", "")
    if not isinstance(name, str) or not isinstance(detail, str):
        raise UsageError("an object's name and detail are strings")
    return Region(name, detail, mask_of(plain.get("mask"), "an object's mask"))
