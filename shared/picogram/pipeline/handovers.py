# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What one step of a job leaves for the next, as plain values in the job's facts, which any queue can carry.

    lmm:code ── WordsToWrite ──> encoder ── JobReport ──> gateway
    lmm:read ── WordsRead ─────> decoder ── JobReport ──> gateway
                    └──────────> inspector

Each has a version, so that a step refuses what a worker of another version left instead of misreading it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from picogram.errors import JobFailed
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.semantics.plain import description_of, plain_description
from picogram.semantics.words import ReadText, TextSections


class HandOver:
    """Something under a name of its own in a job's facts. Subclasses say how it looks in plain values."""

    NAME: ClassVar[str]
    VERSION: ClassVar[int] = 1

    def plain(self) -> dict[str, Any]:
        """Without the version."""
        raise NotImplementedError

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of ``plain``."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """To be left in a job's facts."""
        return {self.NAME: {"version": self.VERSION, **self.plain()}}

    @classmethod
    def taken(cls) -> dict[str, Any]:
        """To be left in its place by the step that used it: what has done its work does not travel on."""
        return {cls.NAME: None}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """What a step before left; None: nothing. Raises JobFailed for another version."""
        plain = facts.get(cls.NAME)
        if plain is None:
            return None
        if plain.get("version") != cls.VERSION:
            raise JobFailed("the job was begun by another version of this software: send it again")
        return cls.of_plain(plain)


@dataclass(frozen=True)
class WordsToWrite(HandOver):
    """The words that a file may carry, and what its encoder is to hear; warnings travel by themselves."""

    prepared: PreparedWords

    NAME = "words_to_write"

    def plain(self) -> dict[str, Any]:
        return {
            "variants": [_plain_variant(each) for each in self.prepared.variants],
            "hints": _plain_hints(self.prepared.hints),
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        variants = tuple(_variant(each) for each in plain["variants"])
        return cls(PreparedWords(variants, hints=_hints(plain["hints"])))


@dataclass(frozen=True)
class WordsRead(HandOver):
    """What a file says, as far as it could be read; warnings travel by themselves."""

    text: ReadText

    NAME = "words_read"

    def plain(self) -> dict[str, Any]:
        text = self.text
        description = plain_description(text.description) if text.description else None
        return {"description": description, "coders": dict(text.coders), "problems": dict(text.problems)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        description = description_of(plain["description"]) if plain["description"] else None
        return cls(ReadText(description, dict(plain["coders"]), problems=dict(plain["problems"])))


@dataclass(frozen=True)
class JobReport(HandOver):
    """What came of the job, beside its payload: the facts of ``picogram.results``."""

    result: Mapping[str, Any] = field(default_factory=dict)

    NAME = "report"

    def plain(self) -> dict[str, Any]:
        return {"result": dict(self.result)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        return cls(plain["result"])


def _plain_variant(variant: WordsVariant) -> dict[str, Any]:
    sections = {name: _base64(data) for name, data in variant.sections.optional.items()}
    return {
        "description": plain_description(variant.description) if variant.description else None,
        "sections": sections,
        "coders": dict(variant.sections.coders),
        "lost": variant.lost,
    }


def _variant(plain: Mapping[str, Any]) -> WordsVariant:
    data = {name: base64.b64decode(section) for name, section in plain["sections"].items()}
    sections = TextSections(data.get("caption"), data.get("objects"), dict(plain["coders"]))
    description = description_of(plain["description"]) if plain["description"] else None
    return WordsVariant(sections, description, plain["lost"])


def _plain_hints(hints: Hints) -> dict[str, Any]:
    """``{"heard": "...", "states": {"shape": [T, W], "f2": base64}, "focus": {"shape": [h, w], "f4": base64}}``."""
    plain: dict[str, Any] = {}
    if hints.states is not None:
        plain |= {"heard": hints.heard, "states": _packed(hints.states.astype("<f2"), "f2")}
    if hints.focus is not None:
        plain["focus"] = _packed(hints.focus.weights.astype("<f4"), "f4")
    return plain


def _hints(plain: Mapping[str, Any]) -> Hints:
    """The inverse, bit for bit."""
    states, weights, focus = plain.get("states"), plain.get("focus"), None
    if weights is not None:
        from picogram.latent.focus import Focus

        focus = Focus.of(_unpacked(weights, "f4").astype(np.float32))
    return Hints(
        plain.get("heard"),
        None if states is None else _unpacked(states, "f2").astype(np.float16),
        focus,
    )


def _packed(values: npt.NDArray[Any], kind: str) -> dict[str, Any]:
    return {"shape": list(values.shape), kind: _base64(values.tobytes())}


def _unpacked(plain: Mapping[str, Any], kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(plain[kind]), f"<{kind}").reshape(plain["shape"])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
