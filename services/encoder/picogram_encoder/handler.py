# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the encoder: image bytes of any accepted format, and perhaps words -> a .pico file."""

from __future__ import annotations

from picogram.api import assemble
from picogram.bitstream import MEDIA_TYPE
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.words import plain_description
from picogram.profiles.plain import prepared_of
from picogram.profiles.words import Prepared

_TARGETS = ("bytes", "bpp", "quality")


def handler(jobs: list[Job]) -> list[Outcome]:
    """Encode each job's payload under its options ``bytes``, ``bpp`` or ``quality``, and ``profile``.

    Words come from the facts that the step ``lmm:code`` left; facts are updated with what of them is in the file.
    """
    return [_encode(job) for job in jobs]


def warm_up() -> None:
    """Load the models by coding a small gray picture."""
    from PIL import Image

    assemble(Image.new("RGB", (64, 64), "gray"), Prepared(), profile="base")


def _encode(job: Job) -> Outcome:
    targets = {name: job.options[name] for name in _TARGETS if job.options.get(name) is not None}
    try:
        image = read_image(job.payload)
        prepared = prepared_of(job.facts.get("choices", []))
        encoded = assemble(image, prepared, profile=job.options.get("profile") or "base", **targets)
    except Exception as error:
        return error
    description = plain_description(encoded.description) if encoded.description else None
    facts: dict[str, object] = {"description": description, "coders": encoded.coders, "choices": []}
    return Result(encoded.data, MEDIA_TYPE, facts, encoded.warnings)
