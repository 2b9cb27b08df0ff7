# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From files to pictures: the base picture, then the stages that the profile asks of the model at hand.

    file ── latent codec ──> base picture ── preview
    profile, words ── plan ──> stages ── sampler ──> picture ── enlarged, if it was coded at half the size

What a profile asks is data (``ProfileSpec.plans``); callers may change steps and guidance, and 0 steps leave the base
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.bitstream import Picogram
from picogram.diffusion.stages import MAX_SEED, Stage
from picogram.errors import UsageError
from picogram.profiles.registry import profile_of
from picogram.profiles.spec import ModelKind, ProfileSpec, StagePlan
from picogram.request import DecodeOptions
from picogram.results import Decoded, Drawing
from picogram.semantics.description import Description, Region

if TYPE_CHECKING:
    from torch import Tensor

    from picogram.diffusion.denoiser import BasePicture, Denoiser

EMBEDDED: Final = "embedded"
"""The model that comes with the package."""
_STRIDE: Final = 0x9E3779B1
"""Between the seeds of a picture's stages."""
LARGEST: Final[Mapping[str, int]] = {EMBEDDED: 4_000_000}
"""Pixels up to which a kind of model draws by default: on two cores of a laptop that takes about a minute, and a server
gives a job two. Who names ``steps`` gets them at any size."""


class Watch(Protocol):
    """Somebody who looks on. Either call may raise to give the picture up."""

    def preview(self, picture: Image.Image) -> None:
        """The base picture at its full size, before anything is imagined."""

    def progress(self, fraction: float) -> None:
        """After each step: how much is done, 0 to 1."""


class ProgressWatch:
    """A ``Watch`` that only hears of fractions."""

    def __init__(self, progress: Callable[[float], None] = lambda fraction: None) -> None:
        self.progress = progress

    def preview(self, picture: Image.Image) -> None: ...


def plan(
    spec: ProfileSpec,
    kind: ModelKind,
    rate: float,
    description: Description | None,
    options: DecodeOptions,
    pixels: int = 0,
) -> tuple[Stage, ...]:
    """The stages of one file for a model of that kind; none: the base picture stays as it is. ``pixels``: as coded.

    Raises UsageError for guidance of a one-step model, which was made without.
    """
    if kind == "one-step" and options.guidance not in (None, 1):
        raise UsageError("this decoder's model takes one step and no guidance: leave guidance out, or 1")
    chosen = spec.plans[kind]
    if options.steps == 0:
        return ()
    if options.steps is None and (rate > chosen.finest or pixels > LARGEST.get(kind, pixels)):
        return ()
    words = description or Description()
    each, overall = chosen.each, chosen.overall
    stages = [_stage(each, options, _phrase(o), each.steps, o.mask) for o in words.objects] if each else []
    steps = overall.steps if options.steps is None else options.steps
    stages.append(_stage(overall, options, words.caption, steps))
    return tuple(replace(s, seed=(options.seed + n * _STRIDE) & MAX_SEED) for n, s in enumerate(stages))


def _phrase(region: Region) -> str:
    return f"{region.name}, {region.detail}" if region.detail else region.name


def _stage(
    way: StagePlan, options: DecodeOptions, prompt: str, steps: int, mask: npt.NDArray[np.bool_] | None = None
) -> Stage:
    return Stage(
        prompt=prompt,
        negative=way.negative,
        mask=mask,
        steps=steps,
        guidance=way.guidance if options.guidance is None else options.guidance,
        start=way.start,
        control=way.control,
        attention=way.attention,
    )


def base_picture(file: Picogram) -> BasePicture:
    """What a file holds before anything is imagined, as large as coded. Raises CorruptBitstream, UnknownModel."""
    import torch

    from picogram.diffusion.denoiser import BasePicture
    from picogram.latent.codec import load_codec

    codec, size = load_codec(file.header.model), file.header.coded_size
    latent, rate = codec.latent(file.latent, *size)
    pixels = torch.from_numpy(codec.synthesise(latent, rate, *size)).permute(2, 0, 1).float().div_(255)
    # a copy, for tensors of inference mode cannot take part in attention guidance by gradients
    return BasePicture(pixels, latent[0].clone(), rate)


def finished(pixels: Tensor, file: Picogram) -> Image.Image:
    """``[3, H, W]`` 0..1 as an RGB picture of the original's size."""
    header = file.header
    whole = pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(whole))
    if header.halvings:
        picture = picture.resize((header.width, header.height), Image.Resampling.BICUBIC)
    return picture


@dataclass(frozen=True)
class _Started:
    """A file whose base picture is there."""

    file: Picogram
    base: BasePicture
    stages: tuple[Stage, ...]
    description: Description | None
    watch: Watch

    def outcome(self, pixels: Tensor, seed: int, model: str) -> Decoded:
        """``pixels [3, H, W]`` 0..1, as coded."""
        last = self.stages[-1] if self.stages else None
        steps, guidance = (last.steps, last.guidance) if last else (0, None)
        drawing = Drawing(len(self.stages), steps, guidance, seed, model)
        return Decoded(finished(pixels, self.file), self.description, drawing)


def draw(
    files: Sequence[Picogram],
    descriptions: Sequence[Description | None],
    asked: Sequence[DecodeOptions],
    watches: Sequence[Watch] | None = None,
    denoiser: Denoiser | None = None,
    model: str = EMBEDDED,
) -> list[Decoded | Exception]:
    """For each file its picture and how it was drawn, or what went wrong with it, a watch that gave up included.

    ``descriptions``: what the files say (None: nothing). ``denoiser``: instead of the embedded model, which is loaded
    if a file has stages; ``model``: what the results call it. Raises ModelMissing or ModelDamaged if that is not there.
    """
    watches = watches or [ProgressWatch()] * len(files)
    kind = denoiser.kind if denoiser else EMBEDDED
    outcomes: list[Decoded | Exception] = []
    waiting: dict[int, _Started] = {}
    for index, (file, words, options) in enumerate(zip(files, descriptions, asked, strict=True)):
        try:
            started = _begin(file, words, options, kind, watches[index])
        except Exception as error:
            outcomes.append(error)
            continue
        outcomes.append(started.outcome(started.base.pixels, options.seed, model))
        if started.stages:
            waiting[index] = started
    for index, outcome in zip(waiting, _restored(list(waiting.values()), denoiser), strict=True):
        outcomes[index] = (
            outcome
            if isinstance(outcome, Exception)
            else waiting[index].outcome(outcome, asked[index].seed, model)
        )
    return outcomes


def _begin(
    file: Picogram, words: Description | None, options: DecodeOptions, kind: ModelKind, watch: Watch
) -> _Started:
    base = base_picture(file)
    stages = plan(profile_of(file), kind, base.rate, words, options, base.pixels[0].numel())
    watch.preview(finished(base.pixels, file))
    return _Started(file, base, stages, words, watch)


def _restored(waiting: Sequence[_Started], denoiser: Denoiser | None) -> list[Tensor | Exception]:
    if not waiting:
        return []
    from picogram.diffusion.denoiser import Restoration
    from picogram.diffusion.embedded import load_denoiser
    from picogram.diffusion.sampler import restore

    return restore(
        denoiser or load_denoiser(),
        [Restoration(each.base, each.stages) for each in waiting],
        lambda row, fraction: waiting[row].watch.progress(fraction),
    )
