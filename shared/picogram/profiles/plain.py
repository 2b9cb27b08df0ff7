# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Prepared words as they travel between the steps of a job: plain values, which any broker can carry.

Prepared <-> [{"description": {...} or None, "sections": {"caption": "base64"}, "coders": {...}, "lost": "..."}]
Hints    <-> {"heard": "...", "states": {"shape": [T, W], "f2": "base64"}, "focus": {"shape": [h, w], "f4": "base64"}}
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from picogram.jobs.words import description_of, plain_description, plain_sections, sections_of
from picogram.latent.focus import Focus
from picogram.profiles.hints import Hints
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


def plain_hints(hints: Hints) -> dict[str, Any]:
    """Hints of any kind; {} for none."""
    plain: dict[str, Any] = {}
    if hints.states is not None:
        plain |= {"heard": hints.heard, "states": _packed(hints.states.astype("<f2"), "f2")}
    if hints.focus is not None:
        plain["focus"] = _packed(hints.focus.weights.astype("<f4"), "f4")
    return plain


def hints_of(plain: Mapping[str, Any]) -> Hints:
    """The inverse of ``plain_hints``, bit for bit."""
    states, focus = plain.get("states"), plain.get("focus")
    return Hints(
        plain.get("heard"),
        None if states is None else _unpacked(states, "f2").astype(np.float16),
        None if focus is None else Focus.of(_unpacked(focus, "f4").astype(np.float32)),
    )


def _packed(values: npt.NDArray[Any], kind: str) -> dict[str, Any]:
    return {"shape": list(values.shape), kind: base64.b64encode(values.tobytes()).decode()}


def _unpacked(plain: Mapping[str, Any], kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(plain[kind]), f"<{kind}").reshape(plain["shape"])


def _choice(plain: Mapping[str, Any]) -> Choice:
    coded = sections_of(plain["sections"])
    sections = TextSections(coded.get("caption"), coded.get("objects"), dict(plain["coders"]))
    description = description_of(plain["description"]) if plain["description"] else None
    return Choice(sections, description, plain["lost"])
