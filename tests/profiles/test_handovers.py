# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Hand-overs between the steps of a job: they cross JSON bit for bit, and another version's are refused."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from picogram.errors import JobFailed
from picogram.jobs import Job, Result
from picogram.latent.focus import Focus
from picogram.pipeline.handovers import HandOver, JobReport, WordsRead, WordsToWrite
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.results import Decoded, Drawing
from picogram.semantics.description import Description, Region
from picogram.semantics.words import ReadText, TextSections

Some = TypeVar("Some", bound=HandOver)

UGLY = "Ein Höhlenbär\n\x00\u202e \N{BEAR FACE} \\"
RANDOM = np.random.default_rng(3)
FULL = Description(
    UGLY,
    (
        Region("dog", "wet: all over", RANDOM.random((16, 16)) > 0.5),
        Region("犬", "", RANDOM.random((64, 64)) > 0.5),
    ),
)
SECTIONS = TextSections(
    RANDOM.bytes(40), RANDOM.bytes(300), {"caption": "exact-lm/short", "objects": "static"}
)
VARIANTS = (
    WordsVariant(SECTIONS, FULL),
    WordsVariant(TextSections(b"", None, {"caption": "raw"}), Description(""), "the details of objects were"),
    WordsVariant(lost="the caption was"),
)
HAND_OVERS: list[HandOver] = [
    WordsToWrite(PreparedWords()),
    WordsToWrite(PreparedWords(VARIANTS)),
    WordsRead(ReadText(None)),
    WordsRead(ReadText(FULL, {"caption": "static"}, problems={"objects": "it is damaged"})),
    JobReport(),
    JobReport({"heard": UGLY, "bpp": 0.1 + 0.2, "drawing": Drawing(3, 2, 0.1, 2**32 - 1, "m").facts()}),
]


def travelled(left: Some) -> Some:
    """What the next step takes of the facts of a job that went through a queue."""
    facts = json.loads(json.dumps({"others": 1, **left.facts()}, allow_nan=False))
    taken = type(left).of(facts)
    assert taken is not None
    return taken


@pytest.mark.parametrize("left", HAND_OVERS)
def test_they_are_the_same_behind_json(left: HandOver) -> None:
    assert travelled(left) == left
    assert travelled(left).facts() == left.facts()


def test_numbers_of_hints_are_the_same_bit_for_bit() -> None:
    states = RANDOM.normal(scale=9, size=(5, 576)).astype(np.float16)
    states[0, :4] = np.nan, np.inf, -0.0, np.finfo(np.float16).smallest_subnormal
    weights = RANDOM.random((3, 7)).astype(np.float32)
    weights[0, 0] = np.float32(1) / 3
    hints = travelled(
        WordsToWrite(PreparedWords(hints=Hints(UGLY, states, Focus.of(weights))))
    ).prepared.hints
    assert hints.heard == UGLY
    assert hints.states is not None
    assert (hints.states.dtype, hints.states.tobytes()) == (states.dtype, states.tobytes())
    assert hints.focus is not None
    assert hints.focus.weights.tobytes() == weights.tobytes()
    assert hints.guide() is not None


def test_warnings_travel_by_themselves() -> None:
    told = ("the captioner failed (no luck)",)
    assert travelled(WordsToWrite(PreparedWords(VARIANTS, told))).prepared == PreparedWords(VARIANTS)
    assert travelled(WordsRead(ReadText(FULL, warnings=told))).text == ReadText(FULL)


@pytest.mark.parametrize("left", HAND_OVERS)
@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused_and_not_read(left: HandOver, version: Any) -> None:
    facts = left.facts()
    facts[left.NAME] = {"version": version, "whatever": "it has"}
    with pytest.raises(JobFailed, match="another version"):
        type(left).of(facts)
    del facts[left.NAME]["version"]
    with pytest.raises(JobFailed, match="send it again"):
        type(left).of(facts)


@pytest.mark.parametrize("kind", [WordsToWrite, WordsRead, JobReport])
def test_nothing_is_left_where_nothing_was_or_it_has_been_taken(kind: type[HandOver]) -> None:
    assert kind.of({}) is None
    assert kind.of(kind.taken()) is None
    assert (
        kind.of({each.NAME: each.facts()[each.NAME] for each in HAND_OVERS if each.NAME != kind.NAME}) is None
    )


def test_what_has_been_taken_does_not_travel_on() -> None:
    job = Job("encode", b"", ("lmm:code", "encoder"), {})
    after = job.after(Result(b"", "", WordsToWrite(PreparedWords(VARIANTS)).facts()))
    assert isinstance(after, Job)
    assert WordsToWrite.of(after.facts) == WordsToWrite(PreparedWords(VARIANTS))
    done = after.after(Result(b"", "", JobReport({"bytes": 3}).facts() | WordsToWrite.taken()))
    assert isinstance(done, Result)
    assert WordsToWrite.of(done.metadata) is None
    assert JobReport.of(done.metadata) == JobReport({"bytes": 3})
    assert len(json.dumps(done.metadata)) < 100


def test_names_are_their_own() -> None:
    names = [kind.NAME for kind in (WordsToWrite, WordsRead, JobReport)]
    assert len(set(names)) == len(names)


def test_a_report_holds_the_facts_of_a_result() -> None:
    decoded = Decoded(Image.new("RGB", (9, 7)), FULL, Drawing(1, 2, None, 5, "embedded"))
    facts = travelled(JobReport(decoded.facts())).result
    back = Decoded.of(decoded.source, facts)
    assert (back.description, back.drawing, back.size) == (decoded.description, decoded.drawing, (9, 7))
