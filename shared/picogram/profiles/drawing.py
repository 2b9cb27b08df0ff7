# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From files to pictures: the base picture, then the stages that the profile asks of the model at hand.

    file ── latent codec ──> base picture ── preview
    profile, words ── plan ──> stages ── sampler ──> picture ── enlarged, if it was coded at half the size

What a profile asks is data (``PLANS``); callers may change steps and guidance, and 0 steps leave the base picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.bitstream import Picogram, Profile
from picogram.diffusion.stages import MAX_GUIDANCE, MAX_SEED, Attention, Stage
from picogram.errors import UsageError
from picogram.ranges import check_number, check_whole
from picogram.semantics.description import Description, Region

if TYPE_CHECKING:
    from torch import Tensor

    from picogram.diffusion.denoiser import BasePicture, Denoiser

MOST_STEPS: Final = 50
_STRIDE: Final = 0x9E3779B1
"""Between the seeds of a picture's stages."""
NEGATIVE: Final = "blurry, out of focus, low quality, flat, smooth, artificial"
"""What large models are told to keep away from; the embedded one has only learnt what no words mean."""


@dataclass(frozen=True)
class Drawing:
    """What a caller may say. Raises UsageError out of range.

    ``steps`` of the last pass: 0 to MOST_STEPS, 0 for the base picture; None: the profile's. ``guidance``: 0 to
    MAX_GUIDANCE, 1 for none; None: the profile's. ``seed``: the same gives the same picture.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_whole("steps", self.steps, 0, MOST_STEPS)
        if self.guidance is not None:
            check_number("guidance", self.guidance, 0, MAX_GUIDANCE)
        check_whole("seed", self.seed, 0, MAX_SEED)


class Watch(Protocol):
    """Somebody who looks on. Either call may raise to give the picture up."""

    def preview(self, picture: Image.Image) -> None:
        """The base picture at its full size, before anything is imagined."""

    def progress(self, fraction: float) -> None:
        """After each step: how much is done, 0 to 1."""


class Told:
    """A ``Watch`` for whom fractions are enough."""

    def __init__(self, progress: Callable[[float], None] = lambda fraction: None) -> None:
        self.progress = progress

    def preview(self, picture: Image.Image) -> None: ...


@dataclass(frozen=True)
class Pass:
    """Steps over the picture or over one object; fields as in ``Stage``."""

    steps: int
    guidance: float = 1.0
    start: float = 1.0
    control: Literal["base", "previous"] = "base"
    attention: Attention | None = None
    negative: str = ""


@dataclass(frozen=True)
class Plan:
    """``each`` object of the file in order, by its name and detail inside its mask; then ``overall``, by the caption.

    ``finest``: files of a higher rate (0..1) stay as they are, for the base picture is better there (1.0: none).
    """

    overall: Pass
    each: Pass | None = None
    finest: float = 1.0


_ORAG = Attention()
_FULL = Pass(40, 7.0, negative=NEGATIVE)
PLANS: Final[Mapping[str, Mapping[Profile, Plan]]] = {
    "embedded": {
        Profile.BASE: Plan(Pass(1)),
        Profile.STC: Plan(Pass(1)),
        Profile.MISC: Plan(Pass(1), Pass(1)),
        Profile.TACO: Plan(Pass(1)),
        Profile.SEDIC: Plan(Pass(1), Pass(1, attention=_ORAG)),
    },
    "many-step": {
        Profile.BASE: Plan(Pass(20, negative=NEGATIVE)),
        Profile.STC: Plan(_FULL),
        Profile.MISC: Plan(_FULL, Pass(3, 3.5, negative=NEGATIVE)),
        Profile.TACO: Plan(Pass(20, negative=NEGATIVE)),
        Profile.SEDIC: Plan(
            Pass(20, 7.0, negative=NEGATIVE),
            Pass(10, 3.5, control="previous", negative=NEGATIVE, attention=_ORAG),
        ),
    },
    "one-step": {
        Profile.BASE: Plan(Pass(1)),
        Profile.STC: Plan(Pass(1)),
        Profile.MISC: Plan(Pass(1), Pass(1)),
        Profile.TACO: Plan(Pass(1)),
        Profile.SEDIC: Plan(Pass(1), Pass(1, attention=_ORAG)),
    },
}
"""By kind of model. Steps of the large ones as published: Murai et al. 40; MISC 3 an object and 40; SEDIC's appendix
finds its best near 10 an object and 20."""


LARGEST: Final[Mapping[str, int]] = {"embedded": 4_000_000}
"""Pixels up to which a kind of model draws by default: on two cores of a laptop that takes about a minute, and a server
gives a job two. Who names ``steps`` gets them at any size."""


def plan(
    profile: Profile,
    kind: str,
    rate: float,
    description: Description | None,
    drawing: Drawing,
    pixels: int = 0,
) -> tuple[Stage, ...]:
    """The stages of one file for a model of that kind; none: the base picture stays as it is. ``pixels``: as coded.

    Raises UsageError for guidance of a one-step model, which was made without.
    """
    if kind == "one-step" and drawing.guidance not in (None, 1):
        raise UsageError("this decoder's model takes one step and no guidance: leave guidance out, or 1")
    chosen = PLANS[kind].get(profile)
    if chosen is None or drawing.steps == 0:
        return ()
    if drawing.steps is None and (rate > chosen.finest or pixels > LARGEST.get(kind, pixels)):
        return ()
    words = description or Description()
    each, overall = chosen.each, chosen.overall
    stages = [_stage(each, drawing, _phrase(o), each.steps, o.mask) for o in words.objects] if each else []
    steps = overall.steps if drawing.steps is None else drawing.steps
    stages.append(_stage(overall, drawing, words.caption, steps))
    return tuple(replace(s, seed=(drawing.seed + n * _STRIDE) & MAX_SEED) for n, s in enumerate(stages))


def _phrase(region: Region) -> str:
    return f"{region.name}, {region.detail}" if region.detail else region.name


def _stage(
    way: Pass, drawing: Drawing, prompt: str, steps: int, mask: npt.NDArray[np.bool_] | None = None
) -> Stage:
    return Stage(
        prompt=prompt,
        negative=way.negative,
        mask=mask,
        steps=steps,
        guidance=way.guidance if drawing.guidance is None else drawing.guidance,
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


def draw(
    files: Sequence[Picogram],
    descriptions: Sequence[Description | None],
    drawings: Sequence[Drawing],
    watches: Sequence[Watch] | None = None,
    denoiser: Denoiser | None = None,
) -> list[Image.Image | Exception]:
    """For each file its picture, RGB at its original size, or what went wrong with it, a watch that gave up included.

    ``descriptions``: what the files say (None: nothing). ``denoiser``: instead of the embedded model, which is loaded
    if a file has stages. Raises ModelMissing or ModelDamaged if that is not there.
    """
    from picogram.diffusion.denoiser import Restoration

    watches = watches or [Told()] * len(files)
    kind = denoiser.kind if denoiser else "embedded"
    outcomes: list[Image.Image | Exception] = []
    items: dict[int, Restoration] = {}
    for index, (file, words, drawing) in enumerate(zip(files, descriptions, drawings, strict=True)):
        try:
            base = base_picture(file)
            pixels = base.pixels[0].numel()
            stages = plan(file.header.profile, kind, base.rate, words, drawing, pixels)
            picture = finished(base.pixels, file)
            watches[index].preview(picture)
            outcomes.append(picture)
        except Exception as error:
            outcomes.append(error)
            continue
        if stages:
            items[index] = Restoration(base, stages)
    if items:
        from picogram.diffusion.embedded import load_denoiser
        from picogram.diffusion.sampler import restore

        waiting = list(items)
        restored = restore(
            denoiser or load_denoiser(),
            list(items.values()),
            lambda row, fraction: watches[waiting[row]].progress(fraction),
        )
        for index, outcome in zip(waiting, restored, strict=True):
            outcomes[index] = outcome if isinstance(outcome, Exception) else finished(outcome, files[index])
    return outcomes
