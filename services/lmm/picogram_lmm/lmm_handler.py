# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the language-model worker: the steps of encoding and decoding that deal with words.

    lmm:describe   picture ── JSON of its description
    lmm:code       picture ── the same picture; leaves ``WordsToWrite``: the words that its file may carry, coded, and
                   hints for the encoder: what it hears of a caption, where the picture shows what matters most
    lmm:read       .pico file ── the same file; leaves ``WordsRead``; warnings for what cannot be read

Which models do it is the affair of ``Words``: this process's own, or a coder and a captioner on vLLM.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

from PIL import Image

from picogram.bitstream import MEDIA_TYPE, Picogram, parse
from picogram.errors import PicogramError, UsageError
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.pipeline.handovers import WordsRead, WordsToWrite
from picogram.pipeline.prepare import prepare
from picogram.request import EncodeOptions
from picogram.semantics.description import MASK_SIDES
from picogram.semantics.plain import plain_description
from picogram.semantics.words import ReadText, Words, default_words

PIXELS_AT_ONCE = 16_000_000
"""Pictures are read as they come, and described whenever they have this many pixels together."""
_PICTURE = "application/octet-stream"
_logger = logging.getLogger("picogram.lmm")


def handler(jobs: list[Job]) -> list[Outcome]:
    """``LmmHandler`` with the models of this process, loaded when first needed."""
    return LmmHandler(default_words())(jobs)


class LmmHandler:
    """``handler(jobs)`` over some ``Words``: one outcome per job, in order; jobs of a batch have the same task."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._tasks: dict[str, Callable[[list[Job]], list[Outcome]]] = {
            "describe": self._describe,
            "code": self._code,
            "read": self._read,
        }

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        """Raises UsageError for an unknown task, and ModelMissing or ModelDamaged."""
        act = self._tasks.get(jobs[0].task)
        if act is None:
            raise UsageError(f"this worker has no task {jobs[0].task!r}, only {', '.join(self._tasks)}")
        return act(jobs)

    def _describe(self, jobs: list[Job]) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        for side in sorted({_side(job) for job in jobs}):
            alike = [job for job in jobs if _side(job) == side]
            for some, pictures in _with_pictures(alike, outcomes):
                for job, description in zip(some, self._words.describe(pictures, side=side), strict=True):
                    body = json.dumps(plain_description(description), ensure_ascii=False).encode()
                    outcomes[job.id] = Result(body, "application/json")
        return [outcomes[job.id] for job in jobs]

    def _code(self, jobs: list[Job]) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        asked: dict[str, EncodeOptions] = {}
        for job in jobs:
            try:
                asked[job.id] = EncodeOptions.of(job.options)
            except PicogramError as error:
                outcomes[job.id] = error
        for some, pictures in _with_pictures([job for job in jobs if job.id in asked], outcomes):
            found = prepare(pictures, [asked[job.id] for job in some], self._words)
            for job, prepared in zip(some, found, strict=True):
                facts = WordsToWrite(prepared).facts()
                outcomes[job.id] = Result(job.payload, _PICTURE, facts, prepared.warnings)
        return [outcomes[job.id] for job in jobs]

    def _read(self, jobs: list[Job]) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        files: dict[str, Picogram] = {}
        for job in jobs:
            try:
                files[job.id] = parse(job.payload)
            except PicogramError as error:
                outcomes[job.id] = error
        texts = dict(zip(files, self._texts(list(files.values())), strict=True))
        for job in jobs:
            if text := texts.get(job.id):
                outcomes[job.id] = Result(job.payload, MEDIA_TYPE, WordsRead(text).facts(), text.warnings)
        return [outcomes[job.id] for job in jobs]

    def _texts(self, files: list[Picogram]) -> list[ReadText]:
        """What the files say; the picture must come even if the engine breaks down."""
        try:
            return self._words.read(files)
        except Exception as error:
            if len(files) > 1:  # all but one may be readable
                return [text for file in files for text in self._texts([file])]
            _logger.exception("words cannot be read")
            reason = f": {error}" if isinstance(error, PicogramError) else ""
            return [ReadText(None, warnings=(f"the words could not be read{reason}",))]


def _with_pictures(
    jobs: list[Job], outcomes: dict[str, Outcome]
) -> Iterator[tuple[list[Job], list[Image.Image]]]:
    """Jobs and their pictures, a few at a time so that memory stays bounded; unreadable ones end in ``outcomes``."""
    some: list[Job] = []
    pictures: list[Image.Image] = []
    for job in jobs:
        try:
            picture = read_image(job.payload)
        except PicogramError as error:
            outcomes[job.id] = error
            continue
        if some and sum(p.width * p.height for p in [*pictures, picture]) > PIXELS_AT_ONCE:
            yield some, pictures
            some, pictures = [], []
        some.append(job)
        pictures.append(picture)
    if some:
        yield some, pictures


def _side(job: Job) -> int:
    """Of the masks that the caller wants."""
    return int(job.options.get("mask_side", MASK_SIDES[0]))
