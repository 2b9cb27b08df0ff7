# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Prepared words as they travel between the steps of a job: plain values, which any broker can carry.

Prepared <-> [{"description": {...} or None, "sections": {"caption": "base64"}, "coders": {...}, "lost": "..."}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from picogram.jobs.words import description_of, plain_description, plain_sections, sections_of
from picogram.profiles.words import Choice, Prepared
from picogram.semantics.words import TextSections


def plain_choices(prepared: Prepared) -> list[dict[str, Any]]:
    """The choices of prepared words; warnings travel by themselves."""
    return [
        {
            "description": plain_description(choice.description) if choice.description else None,
            "sections": plain_sections(choice.sections.optional),
            "coders": choice.sections.coders,
            "lost": choice.lost,
        }
        for choice in prepared.choices
    ]


def prepared_of(plain: Sequence[Mapping[str, Any]]) -> Prepared:
    """The inverse of ``plain_choices``; nothing prepared where there are none."""
    return Prepared(tuple(_choice(each) for each in plain)) if plain else Prepared()


def _choice(plain: Mapping[str, Any]) -> Choice:
    coded = sections_of(plain["sections"])
    sections = TextSections(coded.get("caption"), coded.get("objects"), dict(plain["coders"]))
    description = description_of(plain["description"]) if plain["description"] else None
    return Choice(sections, description, plain["lost"])
