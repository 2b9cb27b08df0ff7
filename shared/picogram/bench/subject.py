# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One picture of an ablation: files that say different things at one budget, and drawings of them, nothing made twice.

picture ── file(said, profile, budget) ──> .pico ── draw(file, plan) ──> Drawn: metrics, and what it was drawn from
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from picogram import api
from picogram.bench.compare import Measured
from picogram.bitstream import Picogram, parse
from picogram.diffusion.denoiser import BasePicture, Denoiser, Restoration
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Stage
from picogram.pipeline.draw import base_picture, finished, plan
from picogram.pipeline.prepare import PreparedWords, WordsVariant
from picogram.profiles.spec import ProfileSpec
from picogram.request import DecodeOptions, EncodeOptions
from picogram.semantics.description import Description
from picogram.semantics.words import Words

Measure = Callable[[Image.Image], Measured]


@dataclass(frozen=True)
class Drawn:
    """A drawing in numbers. ``digest``: of all that it was made from but the seed; equal for equal drawings."""

    measured: Measured
    digest: str


class Subject:
    """A picture, with its files and drawings as long as it is kept."""

    def __init__(self, picture: Image.Image, measure: Measure, words: Words, denoiser: Denoiser) -> None:
        """``picture``: RGB. ``measure``: compares with it."""
        self.picture = picture
        self._measure, self._words, self._denoiser = measure, words, denoiser
        self._files: dict[tuple[Description | None, str, int], bytes] = {}
        self._variants: dict[Description, WordsVariant] = {}
        self._bases: dict[tuple[bytes, int], BasePicture] = {}
        self._drawn: dict[tuple[str, tuple[int, ...]], Drawn] = {}

    def code(self, descriptions: Sequence[Description]) -> None:
        """Code the texts of descriptions together, which is faster than one by one."""
        new = [each for each in dict.fromkeys(descriptions) if each not in self._variants]
        coded = self._words.code(new) if new else []
        self._variants |= {d: WordsVariant(sections, d) for d, sections in zip(new, coded, strict=True)}

    def file(self, said: Description | None, spec: ProfileSpec, budget: int) -> bytes:
        """The best file of at most ``budget`` bytes; without ``said`` one of profile base. Raises BudgetTooSmall."""
        key = said, "base" if said is None else spec.name, budget
        if key not in self._files:
            self._files[key] = self._encode(*key)
        return self._files[key]

    def _encode(self, said: Description | None, profile: str, budget: int) -> bytes:
        if said is None:
            return api.encode(self.picture, bytes=budget)
        self.code([said])
        prepared = PreparedWords((self._variants[said],))
        return api.assemble(self.picture, prepared, EncodeOptions(bytes=budget, profile=profile)).data

    def draw(self, data: bytes, spec: ProfileSpec | None, drawn: Description | None, seed: int) -> Drawn:
        """The drawing that a profile asks for, whatever profile the file has; without ``spec`` the base picture."""
        file = parse(data)
        base = self._base(file)
        stages: list[Stage] = []
        if spec is not None:
            stages += plan(spec, self._denoiser.kind, base.rate, drawn, DecodeOptions(seed=seed))
        digest = _digest(file, stages)
        key = digest, tuple(stage.seed for stage in stages)
        if key not in self._drawn:
            (pixels,) = restore(self._denoiser, [Restoration(base, stages)])
            assert isinstance(pixels, Tensor)  # noqa: S101 - nobody watches who could give it up
            self._drawn[key] = Drawn(self._measure(finished(pixels, file)), digest)
        return self._drawn[key]

    def _base(self, file: Picogram) -> BasePicture:
        key = file.latent, file.header.halvings
        if key not in self._bases:
            self._bases[key] = base_picture(file)
        return self._bases[key]


def _digest(file: Picogram, stages: Sequence[Stage]) -> str:
    said = [
        (
            stage.prompt,
            stage.negative,
            None if stage.mask is None else (stage.mask.shape, stage.mask.tobytes()),
            stage.steps,
            stage.guidance,
            stage.start,
            stage.control,
            stage.attention,
        )
        for stage in stages
    ]
    return hashlib.sha256(repr((file.latent, file.header.halvings, said)).encode()).hexdigest()[:16]
