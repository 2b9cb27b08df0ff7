# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the encoder: image bytes of any accepted format, perhaps words and hints -> a .pico file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from picogram.api import assemble
from picogram.bitstream import MEDIA_TYPE
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.words import plain_description
from picogram.latent.focus import Focus
from picogram.profiles.hints import Hints
from picogram.profiles.plain import hints_of, prepared_of
from picogram.profiles.words import Prepared
from picogram.request import EncodeOptions


def handler(jobs: list[Job]) -> list[Outcome]:
    """Encode each job's payload under its options, those of ``EncodeOptions.plain``.

    Words and hints come from the facts that the step ``lmm:code`` left; facts are updated with what of the words is in
    the file, and which caption was ``heard``.
    """
    return [_encode(job) for job in jobs]


def warm_up() -> None:
    """Load the models by coding a small gray picture."""
    from PIL import Image

    assemble(Image.new("RGB", (64, 64), "gray"), Prepared(), EncodeOptions())


def _encode(job: Job) -> Outcome:
    try:
        image, options = read_image(job.payload), EncodeOptions.of(job.options)
        prepared = replace(prepared_of(job.facts.get("choices", [])), hints=_hints(job, options))
        encoded = assemble(image, prepared, options, _watch(job))
    except Exception as error:
        return error
    description = plain_description(encoded.description) if encoded.description else None
    facts: dict[str, object] = {"description": description, "coders": encoded.coders, "heard": encoded.heard}
    # What has done its work does not travel on.
    return Result(encoded.data, MEDIA_TYPE, facts | {"choices": [], "hints": {}}, encoded.warnings)


def _watch(job: Job) -> Callable[[float], None]:
    """Passes on how far the search is, and asks whether anybody wants the job still. Raises JobCanceled."""

    def tell(fraction: float) -> None:
        job.control.progress(fraction)
        job.control.check()

    return tell


def _hints(job: Job, options: EncodeOptions) -> Hints:
    """Those that were prepared, and the focus that the caller drew, which needs no models."""
    hints, focus = hints_of(job.facts.get("hints", {})), options.focus
    return hints if focus is None or isinstance(focus, str) else replace(hints, focus=Focus.of(focus))
