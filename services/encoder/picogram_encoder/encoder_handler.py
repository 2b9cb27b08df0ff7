# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the encoder: image bytes of any accepted format, perhaps words and hints -> a .pico file."""

from __future__ import annotations

from collections.abc import Callable

from picogram.bitstream import MEDIA_TYPE
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.pipeline.assemble import assemble
from picogram.pipeline.handovers import JobReport, WordsToWrite
from picogram.pipeline.prepare import PreparedWords
from picogram.request import EncodeOptions


def handler(jobs: list[Job]) -> list[Outcome]:
    """Encode each job's payload under its options, those of ``EncodeOptions.plain``.

    Words and hints come from the step ``lmm:code``; the report says what is in the file.
    """
    return [_encode(job) for job in jobs]


def warm_up() -> None:
    """Load the models by coding a small gray picture."""
    from PIL import Image

    assemble(Image.new("RGB", (64, 64), "gray"), PreparedWords(), EncodeOptions())


def _encode(job: Job) -> Outcome:
    try:
        image, options = read_image(job.payload), EncodeOptions.of(job.options)
        left = WordsToWrite.of(job.facts)
        encoded = assemble(image, left.prepared if left else PreparedWords(), options, _progress(job))
    except Exception as error:
        return error
    facts = JobReport(encoded.facts()).facts() | WordsToWrite.taken()
    return Result(encoded.data, MEDIA_TYPE, facts, encoded.warnings)


def _progress(job: Job) -> Callable[[float], None]:
    """Passes on how far the search is, and asks whether anybody wants the job still. Raises JobCanceled."""

    def tell(fraction: float) -> None:
        job.control.progress(fraction)
        job.control.check()

    return tell
