# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words as they travel between the steps of a job: plain values, which any broker can carry.

Description <-> {"caption": "...", "objects": [{"name": "dog", "detail": "wet", "mask": ["..##....", ...]}]}
sections    <-> {"caption": "base64"}
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from picogram.semantics.description import Description, Region

_MARKS = ".#"
"""A cell outside and inside an object's mask."""


def plain_description(description: Description) -> dict[str, Any]:
    """Caption and objects; a mask is a list of rows from the top, with ``#`` where the object is."""
    objects = [
        {
            "name": region.name,
            "detail": region.detail,
            "mask": ["".join(_MARKS[cell] for cell in row) for row in region.mask.astype(int).tolist()],
        }
        for region in description.objects
    ]
    return {"caption": description.caption, "objects": objects}


def description_of(plain: Mapping[str, Any]) -> Description:
    """The inverse of ``plain_description``. Raises UsageError for what a description cannot hold."""
    objects = tuple(
        Region(
            each["name"], each["detail"], np.array([[c == _MARKS[1] for c in row] for row in each["mask"]])
        )
        for each in plain["objects"]
    )
    return Description(plain["caption"], objects)


def plain_sections(sections: Mapping[str, bytes]) -> dict[str, str]:
    """Base64 by name."""
    return {name: base64.b64encode(section).decode() for name, section in sections.items()}


def sections_of(plain: Mapping[str, str]) -> dict[str, bytes]:
    """The inverse of ``plain_sections``."""
    return {name: base64.b64decode(section) for name, section in plain.items()}
