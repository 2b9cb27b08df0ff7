# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the encoder: image bytes of any accepted format -> a .pico file."""

from __future__ import annotations

import picogram
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result

MEDIA_TYPE = "application/vnd.picogram"


def handler(jobs: list[Job]) -> list[Outcome]:
    """Encode each job's payload under its options ``bytes``, ``bpp`` or ``quality``, and ``profile``."""
    return [_encode(job) for job in jobs]


def warm_up() -> None:
    """Load the models by coding a small gray picture."""
    from PIL import Image

    picogram.encode(Image.new("RGB", (64, 64), "gray"))


def _encode(job: Job) -> Outcome:
    options = {name: value for name, value in job.options.items() if value is not None}
    try:
        image = read_image(job.payload)
        data = picogram.encode(image, **options)
    except Exception as error:
        return error
    bpp = 8 * len(data) / (image.width * image.height)
    facts = {"bytes": len(data), "bpp": bpp, "width": image.width, "height": image.height}
    return Result(data, MEDIA_TYPE, facts)
