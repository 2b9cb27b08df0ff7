# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the decoder: .pico files and what was read of their words -> images of the media types asked for.

    jobs ── parse, facts, options ──> one call of ``draw`` for all ──> images
                                         └─ to whoever watches: the base picture as a small WebP, then progress by steps

A job that is canceled, or that fails, leaves the others of its batch alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image

import picogram
from picogram.bitstream import Picogram, parse
from picogram.environment import read_settings
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.control import JobControl
from picogram.pipeline.draw import EMBEDDED, draw
from picogram.pipeline.handovers import JobReport, WordsRead
from picogram.profiles.registry import profile_of
from picogram.request import DecodeOptions
from picogram.results import Decoded
from picogram.semantics.description import Description
from picogram_decoder.decoder_settings import DecoderSettings

if TYPE_CHECKING:
    from picogram.diffusion.denoiser import Denoiser

PREVIEW_TYPE: Final = "image/webp"
PREVIEW_SIDE: Final = 512
PREVIEW_BYTES: Final = 100_000
_PREVIEW_QUALITY: Final = 70


def handler(jobs: list[Job]) -> list[Outcome]:
    """``DecoderHandler`` with the model that this process's settings name, loaded when first needed."""
    return _configured()(jobs)


def warm_up() -> None:
    """Load the models of ``handler`` by drawing a small gray picture."""
    _configured().warm_up()


def load_handler(settings: DecoderSettings) -> DecoderHandler:
    """Raises UsageError for a name that no model has, ModelMissing or ModelDamaged for one that cannot be loaded."""
    if settings.model == EMBEDDED:
        return DecoderHandler()
    # The packages that these models need take seconds to import, and may not be installed.
    from picogram_decoder.hub.hub_load import load_hub_denoiser

    return DecoderHandler(load_hub_denoiser(settings.model), settings.model)


class DecoderHandler:
    """``handler(jobs)`` over some model: one outcome per job, in order.

    Options: ``media_type``, PNG by default, and those of ``DecodeOptions.plain``.
    """

    def __init__(self, denoiser: Denoiser | None = None, name: str = EMBEDDED) -> None:
        """``denoiser``: instead of the embedded model; ``name``: what answers call it."""
        self._denoiser, self._name = denoiser, name

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        """Raises ModelMissing or ModelDamaged if a picture needs the embedded model and that is not there."""
        outcomes: dict[str, Outcome] = {}
        requests: list[_Request] = []
        for job in jobs:
            try:
                requests.append(_request(job))
            except Exception as error:
                outcomes[job.id] = error
        drawn = draw(
            [request.file for request in requests],
            [request.description for request in requests],
            [request.options for request in requests],
            [_JobWatch(request.job.control) for request in requests],
            self._denoiser,
            self._name,
        )
        for request, decoded in zip(requests, drawn, strict=True):
            outcomes[request.job.id] = (
                decoded if isinstance(decoded, Exception) else _result(request, decoded)
            )
        return [outcomes[job.id] for job in jobs]

    def warm_up(self) -> None:
        """Load the models by drawing a small gray picture, with a step whatever the profile's default."""
        file = parse(picogram.encode(Image.new("RGB", (64, 64), "gray")))
        (drawn,) = draw([file], [None], [DecodeOptions(steps=1)], denoiser=self._denoiser)
        if isinstance(drawn, Exception):
            raise drawn


@dataclass(frozen=True)
class _Request:
    """A job, understood; ``notes``: what to tell about its file."""

    job: Job
    file: Picogram
    notes: tuple[str, ...]
    description: Description | None
    options: DecodeOptions


def _request(job: Job) -> _Request:
    """Raises JobCanceled, UsageError or a BitstreamError."""
    job.control.check()
    file, read = parse(job.payload), WordsRead.of(job.facts)
    notes = profile_of(file).reading_notes(file)
    return _Request(job, file, notes, read.text.description if read else None, DecodeOptions.of(job.options))


def _result(request: _Request, decoded: Decoded) -> Outcome:
    """The image as it was asked for, and how it was drawn."""
    media_type = str(request.job.options.get("media_type", "image/png"))
    try:
        data = decoded.image_file(media_type)
    except Exception as error:
        return error
    return Result(data, media_type, JobReport(decoded.facts()).facts() | WordsRead.taken(), request.notes)


@dataclass(frozen=True)
class _JobWatch:
    """Passes on to whoever watches the job, and asks whether anybody wants it still. Raises JobCanceled."""

    control: JobControl

    def preview(self, picture: Image.Image) -> None:
        self.control.check()
        self.control.preview(PREVIEW_TYPE, preview_of(picture))

    def progress(self, fraction: float) -> None:
        self.control.progress(fraction)
        self.control.check()


def preview_of(picture: Image.Image) -> bytes:
    """A WebP of at most PREVIEW_BYTES, its sides at most PREVIEW_SIDE and not larger than the picture's."""
    side = PREVIEW_SIDE
    while True:
        small, out = picture.copy(), io.BytesIO()
        small.thumbnail((side, side), Image.Resampling.BILINEAR)
        small.save(out, "WEBP", quality=_PREVIEW_QUALITY)
        if out.tell() <= PREVIEW_BYTES:
            return out.getvalue()
        side //= 2


@lru_cache(maxsize=1)
def _configured() -> DecoderHandler:
    return load_handler(read_settings(DecoderSettings))
