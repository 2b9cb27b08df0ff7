# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Job handler of the decoder: .pico files and what was read of their words -> images of the media types asked for.

    jobs ── parse, facts, options ──> one call of ``draw`` for all ──> images
                                         └─ to whoever watches: the base picture as a small WebP, then progress by steps

A job that is canceled, or that fails, leaves the others of its batch alone.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image

import picogram
from picogram.bitstream import Picogram, parse
from picogram.environment import read_settings
from picogram.images import write_image
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.control import JobControl
from picogram.jobs.words import description_of
from picogram.latent.exact_prior import RATE_COUNT
from picogram.profiles.drawing import Drawing, draw, plan
from picogram.profiles.recipes import reading_notes
from picogram.semantics.description import Description
from picogram_decoder.settings import EMBEDDED, DecoderSettings

if TYPE_CHECKING:
    from picogram.diffusion.denoiser import Denoiser

PREVIEW_TYPE: Final = "image/webp"
PREVIEW_SIDE: Final = 512
PREVIEW_BYTES: Final = 100_000
_PREVIEW_QUALITY: Final = 70
_OPTIONS: Final = ("steps", "guidance", "seed")


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
    from picogram_decoder.hub.load import load_hub_denoiser

    return DecoderHandler(load_hub_denoiser(settings.model), settings.model)


class DecoderHandler:
    """``handler(jobs)`` over some model: one outcome per job, in order.

    Options: ``media_type``, PNG by default, and what ``Drawing`` takes. Facts of the result: ``width`` and ``height``,
    ``steps`` of the last pass (0: nothing was imagined), its ``guidance``, ``seed`` and ``model``.
    """

    def __init__(self, denoiser: Denoiser | None = None, name: str = EMBEDDED) -> None:
        """``denoiser``: instead of the embedded model; ``name``: what answers call it."""
        self._denoiser, self._name = denoiser, name

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        """Raises ModelMissing or ModelDamaged if a picture needs the embedded model and that is not there."""
        outcomes: dict[str, Outcome] = {}
        orders: list[_Order] = []
        for job in jobs:
            try:
                orders.append(_order(job))
            except Exception as error:
                outcomes[job.id] = error
        pictures = draw(
            [order.file for order in orders],
            [order.description for order in orders],
            [order.drawing for order in orders],
            [_Watch(order.job.control) for order in orders],
            self._denoiser,
        )
        for order, picture in zip(orders, pictures, strict=True):
            outcomes[order.job.id] = (
                picture if isinstance(picture, Exception) else self._write(order, picture)
            )
        return [outcomes[job.id] for job in jobs]

    def warm_up(self) -> None:
        """Load the models by drawing a small gray picture, with a step whatever the profile's default."""
        file = parse(picogram.encode(Image.new("RGB", (64, 64), "gray")))
        (drawn,) = draw([file], [None], [Drawing(steps=1)], denoiser=self._denoiser)
        if isinstance(drawn, Exception):
            raise drawn

    def _write(self, order: _Order, picture: Image.Image) -> Outcome:
        media_type = str(order.job.options.get("media_type", "image/png"))
        try:
            data = write_image(picture, media_type)
        except Exception as error:
            return error
        facts = {"width": picture.width, "height": picture.height, **self._drawn(order)}
        return Result(data, media_type, facts, order.notes)

    def _drawn(self, order: _Order) -> dict[str, object]:
        """How the picture was drawn; the same ``steps`` and ``seed`` give it again."""
        kind = self._denoiser.kind if self._denoiser else EMBEDDED
        file, drawing = order.file, order.drawing
        rate = file.latent[0] / (RATE_COUNT - 1)
        pixels = math.prod(file.header.coded_size)
        stages = plan(file.header.profile, kind, rate, order.description, drawing, pixels)
        last = {"steps": stages[-1].steps, "guidance": stages[-1].guidance} if stages else {"steps": 0}
        return {**last, "seed": drawing.seed, "model": self._name}


@dataclass(frozen=True)
class _Order:
    """A job, understood."""

    job: Job
    file: Picogram
    notes: tuple[str, ...]
    description: Description | None
    drawing: Drawing


def _order(job: Job) -> _Order:
    """Raises JobCanceled, UsageError or a BitstreamError."""
    job.control.check()
    file = parse(job.payload)
    plain = job.facts.get("description")
    given = {name: job.options[name] for name in _OPTIONS if job.options.get(name) is not None}
    return _Order(job, file, reading_notes(file), description_of(plain) if plain else None, Drawing(**given))


@dataclass(frozen=True)
class _Watch:
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
