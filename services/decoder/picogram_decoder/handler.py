# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the decoder: a .pico file -> an image of the media type asked for."""

from __future__ import annotations

import picogram
from picogram.bitstream import parse
from picogram.images import write_image
from picogram.jobs import Job, Outcome, Result
from picogram.profiles.recipes import reading_notes


def handler(jobs: list[Job]) -> list[Outcome]:
    """Decode each job's payload and write it as its option ``media_type``, PNG by default; words are not its affair."""
    return [_decode(job) for job in jobs]


def warm_up() -> None:
    """Load the models by decoding a small gray picture."""
    from PIL import Image

    picogram.decode(picogram.encode(Image.new("RGB", (64, 64), "gray")))


def _decode(job: Job) -> Outcome:
    media_type = str(job.options.get("media_type", "image/png"))
    try:
        notes = reading_notes(parse(job.payload))
        image = picogram.decode(job.payload)
        data = write_image(image, media_type)
    except Exception as error:
        return error
    return Result(data, media_type, {"width": image.width, "height": image.height}, notes)
