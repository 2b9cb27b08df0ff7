# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Stages carried out over any denoiser: the loop, masks, guidance, windows and colours are the same for all of them.

    items ── by size and by shape of their stages ──> batches
    batch ── for each stage: start ── [attention guidance] predict [less the negative] step [keep outside the mask] ──┐
      └── what lies outside the mask, and brightness and colour, come from what was there before ── finish ───────────┘

A picture that fails or is given up leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.diffusion.attention import Energy, bias, descend
from picogram.diffusion.colour import fix_colour
from picogram.diffusion.denoiser import (
    AttentionGuide,
    BasePicture,
    Batch,
    Denoiser,
    Restoration,
    StageProcess,
    Texts,
    Window,
)
from picogram.diffusion.stages import Attention, Stage
from picogram.diffusion.windows import around, blend, cover

EDGE = 16
"""Width in pixels over which a mask's edge fades."""

Watch = Callable[[int, float], None]
"""``watch(index, fraction)``: a picture's progress, 0 to 1, after each step; may raise to give it up."""


@dataclass
class _Group:
    """Items that share every pass: same size, same shape of stages."""

    indices: list[int]
    items: list[Restoration]
    bases: list[BasePicture]
    pictures: Tensor
    original: Tensor
    size: tuple[int, int]
    done: int = 0
    failed: dict[int, Exception] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(stage.steps for stage in self.items[0].stages)


@torch.no_grad()
def restore(
    denoiser: Denoiser, items: Sequence[Restoration], watch: Watch = lambda index, fraction: None
) -> list[Tensor | Exception]:
    """For each item the picture ``[3, H, W]`` 0..1, or what ``watch`` raised for it. Without stages: the base picture."""
    outcomes: list[Tensor | Exception] = [item.base.pixels for item in items]
    grouped: dict[object, list[int]] = {}
    for index, item in enumerate(items):
        if item.stages:
            key = item.base.pixels.shape, tuple(stage.shape for stage in item.stages)
            grouped.setdefault(key, []).append(index)
    for indices in grouped.values():
        pixels = items[indices[0]].base.pixels[0].numel()
        size = max(1, denoiser.batch_pixels // pixels)
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            done = _run(denoiser, _group(denoiser, some, [items[i] for i in some]), watch)
            for index, outcome in zip(some, done, strict=True):
                outcomes[index] = outcome
    return outcomes


def _group(denoiser: Denoiser, indices: list[int], items: list[Restoration]) -> _Group:
    height, width = items[0].base.pixels.shape[1:]
    down, right = -height % denoiser.align, -width % denoiser.align
    pictures = torch.stack([item.base.pixels for item in items]).to(denoiser.device)
    pictures = F.pad(pictures, (0, right, 0, down), mode="replicate")
    bases = [item.base for item in items]
    return _Group(indices, items, bases, pictures, pictures, (height, width))


def _run(denoiser: Denoiser, group: _Group, watch: Watch) -> list[Tensor | Exception]:
    """All stages of a group."""
    for number in range(len(group.items[0].stages)):
        if len(group.failed) == len(group.items):
            break
        group.pictures = _stage(denoiser, group, number, watch)
    height, width = group.size
    pictures = group.pictures[:, :, :height, :width].clamp(0, 1).float().cpu()
    return [group.failed.get(row, picture) for row, picture in enumerate(pictures)]


def _stage(denoiser: Denoiser, group: _Group, number: int, watch: Watch) -> Tensor:
    """The pictures after one stage; as they are if all were given up on the way."""
    stages = [item.stages[number] for item in group.items]
    previous, original = group.pictures, group.original
    control = original if stages[0].control == "base" else previous
    process = denoiser.begin(Batch(group.bases, control, previous, stages))
    mask = _masks(stages, previous)
    drawn = _Drawing(denoiser, process, stages, mask, previous.shape[2:])
    x = process.start()
    for index in range(process.count):
        x = drawn.step(x, index)
        group.done += 1
        _tell(group, watch)
        if len(group.failed) == len(group.items):
            return previous
    pictures = process.finish(x).float()
    pictures = fix_colour(pictures, original)
    return pictures if mask is None else mask * pictures + (1 - mask) * previous


class _Drawing:
    """The steps of one stage."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: StageProcess,
        stages: Sequence[Stage],
        mask: Tensor | None,
        size: Sequence[int],
    ) -> None:
        self._process, self._stages = process, stages
        self._mode = denoiser.attention
        cell, align = denoiser.cell, max(1, denoiser.align // denoiser.cell)
        height, width = size[0] // cell, size[1] // cell
        self._windows = cover(height, width, denoiser.tile // cell, align)
        self._mask = None if mask is None else F.interpolate(mask, (height, width), mode="area")
        if self._mask is not None and denoiser.reach is not None:
            self._windows = around(self._mask, denoiser.reach // cell, denoiser.tile // cell, align)
        self._texts = denoiser.read([stage.prompt for stage in stages])
        self._negative: Texts | None = None
        # guidance away from the very same words is none
        if stages[0].guidance != 1 and any(stage.prompt != stage.negative for stage in stages):
            self._negative = denoiser.read([stage.negative for stage in stages])
        self._guidance = torch.tensor([s.guidance for s in stages], device=denoiser.device)[
            :, None, None, None
        ]

    def step(self, x: Tensor, index: int) -> Tensor:
        """``x`` at ``index + 1``."""
        process, attention = self._process, self._attention(index)
        if attention is not None and attention.mode == "gradient":
            x = self._descend(x, index, attention)
        strength = attention.strength if attention is not None and attention.mode == "bias" else 0.0
        output = blend(x, self._windows, lambda window: self._predict(x, index, window, strength))
        x = process.step(output, x, index)
        if self._mask is not None:
            kept = process.noisy(index + 1)
            x = self._mask * x + (1 - self._mask) * kept
        return x

    def _attention(self, index: int) -> Attention | None:
        """The guidance of a step, its mode known; None where there is none, or no mask for words to act in."""
        attention = self._stages[0].attention
        if attention is None or self._mask is None:
            return None
        if index >= max(1, round(attention.share * self._process.count)):
            return None
        return replace(attention, mode=attention.mode or self._mode)

    def _predict(self, x: Tensor, index: int, window: Window, strength: float) -> Tensor:
        """``strength``: of a bias on the words' attention."""
        guide: AttentionGuide | None = None
        if strength and self._mask is not None:
            guide = bias(window.of(self._mask), self._texts.words, strength)
        part = window.of(x)
        output = self._process.predict(part, index, self._texts, window, guide)
        if self._negative is None:
            return output
        without = self._process.predict(part, index, self._negative, window)
        return without + self._guidance * (output - without)

    def _descend(self, x: Tensor, index: int, attention: Attention) -> Tensor:
        """Window by window, so that memory does not grow with the picture; those that the mask misses stay."""

        def each(window: Window) -> Tensor:
            place = None if self._mask is None else window.of(self._mask)
            if place is None or not place.any():
                return window.of(x)
            return descend(
                window.of(x),
                lambda moving, guide: self._process.predict(moving, index, self._texts, window, guide),
                partial(Energy, place, self._texts.words),
                self._process.deviation(index),
                scale=attention.scale,
                threshold=attention.threshold,
                iterations=attention.iterations,
            )

        return blend(x, self._windows, each)


def _tell(group: _Group, watch: Watch) -> None:
    for row, index in enumerate(group.indices):
        if row not in group.failed:
            try:
                watch(index, group.done / group.total)
            except Exception as error:
                group.failed[row] = error


def _masks(stages: Sequence[Stage], like: Tensor) -> Tensor | None:
    """``[B, 1, H, W]`` 0..1 with soft edges: smoothly between a mask's cells, then steep enough to fade over EDGE."""
    if stages[0].mask is None:
        return None
    height, width = like.shape[2:]
    masks = []
    for stage in stages:
        assert stage.mask is not None  # noqa: S101 - stages of a group agree on it
        grid = torch.from_numpy(stage.mask.copy()).to(like)[None, None]
        smooth = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
        cell = max(height / grid.shape[2], width / grid.shape[3])
        masks.append(((smooth - 0.5) * max(1.0, cell / EDGE) + 0.5).clamp(0, 1))
    return torch.cat(masks)
