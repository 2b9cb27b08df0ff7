# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which steps run within the gateway's process, what can be done altogether, and the step ``inspector``.

embedded    all steps, a thread each, by the workers' handlers; torch loads when the first handler does
fleet       the inspector only; workers elsewhere do the rest, and torch is never imported

    inspector             .pico file, what was read of its words ── JSON
    inspector:reference   picture ── the same by a classical codec, quality and size found by search

The only module of the gateway that reaches models (and thus torch), and it does so when a handler is first called.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from PIL import Image, ImageChops, ImageStat

import picogram
from picogram.errors import BudgetTooSmall, UsageError
from picogram.images import read_image
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.pipeline.handovers import JobReport, WordsRead
from picogram.profiles.registry import DEFAULT_PROFILE, PROFILES
from picogram.semantics.plain import plain_description
from picogram.semantics.words import ReadText


def _nothing() -> None:
    """Nothing to warm up."""


@dataclass(frozen=True)
class Backend:
    """Who does the work here: a handler per step, what loads their models, and what can be done."""

    handlers: Mapping[str, Handler]
    warm_up: Callable[[], None] = _nothing
    catalogue: Callable[[], dict[str, Any]] = dict


def fleet_backend() -> Backend:
    """Inspection alone, which needs no model."""
    return Backend({"inspector": inspect_jobs}, catalogue=shipped_catalogue)


def embedded_backend() -> Backend:
    """The handlers of encoder, decoder and language-model worker, and inspection, which needs no model."""
    handlers = {"encoder": _encode, "decoder": _decode, "lmm": _words, "inspector": inspect_jobs}
    return Backend(handlers, _warm_up, _catalogue)


def _warm_up() -> None:
    """Load what pictures need; the models for words load when the first words come."""
    import picogram_decoder.decoder_handler
    import picogram_encoder.encoder_handler

    picogram_encoder.encoder_handler.warm_up()
    picogram_decoder.decoder_handler.warm_up()


def _catalogue() -> dict[str, Any]:
    """What the inspector says, and the state of the models that words need: in the process that would load them."""
    from picogram.models import store

    known = shipped_catalogue()
    states = [store.state(name) for name in store.remotes()]
    models = [{**each, "state": state} for each, state in zip(known["text_models"], states, strict=True)]
    return {**known, "text_models": models}


def _encode(jobs: list[Job]) -> list[Outcome]:
    from picogram_encoder.encoder_handler import handler

    return handler(jobs)


def _decode(jobs: list[Job]) -> list[Outcome]:
    from picogram_decoder.decoder_handler import handler

    return handler(jobs)


def _words(jobs: list[Job]) -> list[Outcome]:
    from picogram_lmm.lmm_handler import handler

    return handler(jobs)


def inspect_jobs(jobs: list[Job]) -> list[Outcome]:
    """One outcome per job, in order."""
    return [_one(job) for job in jobs]


def shipped_catalogue() -> dict[str, Any]:
    """The profiles offered, the manifests of the models shipped and of those that words need.

    Whether the latter are there is up to the workers.
    """
    from picogram import models
    from picogram.models import store

    return {
        "profiles": list(PROFILES),
        "profile_details": [
            {
                "name": spec.name,
                "label": spec.label,
                "explanation": spec.explanation,
                "sections": list(spec.sections),
                "max_objects": spec.max_objects,
                "guided": spec.guided,
                "default": spec.name == DEFAULT_PROFILE,
            }
            for spec in PROFILES.values()
        ],
        "models": list(models.manifests().values()),
        "drawing_models": [models.shipped_manifest(f"diffusion-{models.DEFAULT_DIFFUSION}")],
        "text_models": [dict(remote.manifest) for remote in store.remotes().values()],
    }


def _one(job: Job) -> Outcome:
    try:
        if job.task == "reference":
            return reference(job.payload, job.options["codec"], job.options["bytes"], job.control.check)
        if job.task:
            raise UsageError(f"the gateway has no task {job.task!r}")
        return _inspect(job)
    except Exception as error:
        return error


def _inspect(job: Job) -> Result:
    left = WordsRead.of(job.facts)
    text = replace(left.text, warnings=job.warnings) if left else ReadText(None, warnings=job.warnings)
    facts = picogram.inspect(job.payload, text=text).as_dict()
    facts["description"] = plain_description(text.description) if text.description else None
    return Result(json.dumps(facts, ensure_ascii=False).encode(), "application/json", WordsRead.taken())


SCALES: Final = (1, 2, 4, 8, 16, 32)
"""What the sides may be divided by."""
_HOPELESS_BPP: Final = 0.003
"""Bits per pixel below which no photograph fits in any of these codecs: that size is not even tried."""


@dataclass(frozen=True)
class _Coder:
    """A format that Pillow writes, with everything but the quality fixed as in ``picogram bench``."""

    name: str
    qualities: range
    settings: dict[str, Any] = field(default_factory=dict)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, self.name, quality=quality, **self.settings)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data), formats=(self.name,)) as image:
            return image.convert("RGB")


_CODERS: Final = {
    # The benchmark has speed 2, which takes 2 s for one try at 0.4 megapixels; somebody is waiting here.
    "avif": _Coder("AVIF", range(101), {"speed": 6, "subsampling": "4:2:0"}),
    "webp": _Coder("WEBP", range(101), {"method": 6}),
    "jpeg": _Coder("JPEG", range(1, 96), {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
}
CODECS: Final = tuple(_CODERS)


@dataclass(frozen=True)
class _Fit:
    data: bytes
    quality: int
    scale: int
    size: tuple[int, int]


def _go_on() -> None:
    """Nobody cancels."""


def reference(image_bytes: bytes, codec: str, max_bytes: int, check: Callable[[], None] = _go_on) -> Result:
    """``image_bytes`` (any format that can be encoded) as one of CODECS, in at most ``max_bytes`` bytes.

    ``width`` and ``height`` of the result are the picture's, ``coded_width`` and ``coded_height`` those that the file
    has. ``check`` is called between tries and may raise to end the search.
    Raises UsageError (no such codec, ``max_bytes`` below 1), BudgetTooSmall, and the ImageErrors of ``read_image``.
    """
    if codec not in _CODERS:
        raise UsageError(f"no codec is named {codec!r}; choose from {', '.join(CODECS)}")
    if max_bytes < 1:
        raise UsageError("the file needs at least one byte")
    coder = _CODERS[codec]
    image = read_image(image_bytes)
    best = min(_finalists(image, coder, max_bytes, check), key=lambda fit: _error(image, coder, fit))
    facts = {
        "codec": codec,
        "quality": best.quality,
        "width": image.width,
        "height": image.height,
        "coded_width": best.size[0],
        "coded_height": best.size[1],
    }
    return Result(best.data, f"image/{codec}", JobReport(facts).facts())


def _finalists(image: Image.Image, coder: _Coder, max_bytes: int, check: Callable[[], None]) -> list[_Fit]:
    """The best fits of the two largest sizes that have one. Raises BudgetTooSmall if none has."""
    fits: list[_Fit] = []
    smallest = 0
    for scale in SCALES:
        small = _shrink(image, scale)
        if 8 * max_bytes < _HOPELESS_BPP * small.width * small.height and scale != SCALES[-1]:
            continue
        check()
        lowest = coder.encode(small, coder.qualities[0])
        smallest = len(lowest)
        if smallest <= max_bytes:
            fits.append(_largest_fit(small, scale, coder, max_bytes, lowest, check))
        if len(fits) == 2:
            break
    if not fits:
        raise BudgetTooSmall(f"the smallest {coder.name} file of this picture has {smallest} bytes")
    return fits


def _largest_fit(
    small: Image.Image,
    scale: int,
    coder: _Coder,
    max_bytes: int,
    lowest: bytes,
    check: Callable[[], None],
) -> _Fit:
    """The highest quality that fits, on the assumption that size grows with quality; ``lowest`` is known to fit."""
    best = _Fit(lowest, coder.qualities[0], scale, small.size)
    low, high = 1, len(coder.qualities)
    while low < high:
        check()
        middle = (low + high) // 2
        data = coder.encode(small, coder.qualities[middle])
        if len(data) <= max_bytes:
            best, low = replace(best, data=data, quality=coder.qualities[middle]), middle + 1
        else:
            high = middle
    return best


def _shrink(image: Image.Image, scale: int) -> Image.Image:
    """The sides divided by ``scale``, rounded up."""
    size = -(-image.width // scale), -(-image.height // scale)
    return image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)


def _error(image: Image.Image, coder: _Coder, fit: _Fit) -> float:
    """Squared error against the original, once enlarged."""
    shown = coder.decode(fit.data)
    if shown.size != image.size:
        shown = shown.resize(image.size, Image.Resampling.LANCZOS)
    return float(sum(ImageStat.Stat(ImageChops.difference(image, shown)).sum2))
