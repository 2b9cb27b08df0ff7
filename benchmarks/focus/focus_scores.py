# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a focus does inside and outside the thing that it names, at equal file bytes, and whether words find the thing.

photo ── no focus, its phrase, another photo's, the mask ── files of base and taco ── base pictures
    ──> LPIPS and PSNR inside and outside the mask ──> VariantRow
phrase ── Words.place ── map ──> how much of it lies on the mask ──> Placed
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.equal_bytes import RESAMPLES, Metric, Scores, VariantRow, at_budget, markdown, summary
from benchmarks.focus.photo_masks import FocusPhoto
from picogram import api
from picogram.bench.measuring import budget_bytes, to_tensor
from picogram.bench.verdicts import Interval, interval
from picogram.errors import BudgetTooSmall, UsageError
from picogram.latent.focus import Focus
from picogram.metrics.perceptual import Lpips
from picogram.pipeline.prepare import PreparedWords
from picogram.request import EncodeOptions
from picogram.semantics.words import Words

PROFILES: Final = ("base", "taco")
PHRASE, OTHER, MASK = "the phrase", "another photo's phrase", "the drawn mask"
PAIRS: Final = (
    *((f"{profile}, {focus}", profile) for profile in PROFILES for focus in (PHRASE, OTHER, MASK)),
    ("taco", "base"),
    (f"taco, {PHRASE}", "base"),
)
METRICS: Final = (
    Metric("lpips_inside", "LPIPS inside↓", 4, share=True),
    Metric("lpips_outside", "LPIPS outside↓", 4, share=True),
    Metric("lpips", "LPIPS↓", 4, share=True),
    Metric("psnr_inside", "PSNR inside↑", 2),
    Metric("psnr_outside", "PSNR outside↑", 2),
)
_MOST_PSNR = 100.0


@dataclass(frozen=True)
class Placed:
    """Where words were found in a photo. ``area``: share of the picture that the mask takes.

    Lifts: the share of a map's weight that lies on the mask, over ``area``; 1 is chance. ``other_lift``: with
    ``other``'s words.
    """

    file: str
    phrase: str
    other: str
    area: float
    lift: float
    other_lift: float


@dataclass
class FocusResult:
    """A whole run; ``heard``: by file the caption that the encoder of ``taco`` listened to."""

    rows: list[VariantRow] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    heard: dict[str, str | None] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        maps = {name: asdict(found) for name, found in self.lifts().items()}
        more = {"lifts": maps, "placed": [asdict(placed) for placed in self.placed]}
        return {"heard": self.heard, "left_out": self.left_out, **more, **summary(self.rows, PAIRS, METRICS)}

    def lifts(self) -> dict[str, Interval]:
        """Mean lifts of right and of wrong words."""
        return {
            PHRASE: interval([placed.lift for placed in self.placed], RESAMPLES),
            OTHER: interval([placed.other_lift for placed in self.placed], RESAMPLES),
        }

    def markdown(self) -> str:
        """Tables of scores and changes, then how well words find their things."""
        told = (
            f"- {name}: {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
            for name, found in self.lifts().items()
        )
        head = "Weight of the map on the mask, over the mask's share of the picture (1: chance):"
        lost = [f"Left out: {sentence}." for sentence in self.left_out]
        return "\n".join([markdown(self.rows, PAIRS, METRICS), head, "", *told, *lost]) + "\n"


def measure(
    photos: Sequence[FocusPhoto],
    bpps: Sequence[float],
    words: Words,
    lpips: Lpips,
    result: FocusResult,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Add to ``result``, ``done`` after every photo. Raises ModelMissing, ModelDamaged, UsageError for a single photo.

    A photo whose words tell nothing there, or that does not fit a budget, is left out of all variants.
    """
    for number, photo in enumerate(photos):
        other = other_phrase(photos, number)
        try:
            focuses = _focuses(photo, other, words)
        except UsageError as error:
            result.left_out.append(f"{photo.file}: {error}")
        else:
            result.placed.append(_placed(photo, other, focuses))
            _add(photo, bpps, words, focuses, lpips, result)
        done()


def _add(
    photo: FocusPhoto,
    bpps: Sequence[float],
    words: Words,
    focuses: Mapping[str, Focus | None],
    lpips: Lpips,
    result: FocusResult,
) -> None:
    prepared = _prepared(photo, words)
    result.heard[photo.file] = prepared["taco"].hints.heard
    for bpp in bpps:
        try:
            result.rows += _rows(photo, bpp, prepared, focuses, lpips)
        except BudgetTooSmall as error:
            result.left_out.append(f"{photo.file} at {bpp:g} bpp: {error}")


def other_phrase(photos: Sequence[FocusPhoto], number: int) -> str:
    """Of the photo half the set further on, or the next one with another phrase. UsageError if there is none."""
    half = max(1, len(photos) // 2)
    others = (photos[(number + half + n) % len(photos)].phrase for n in range(len(photos)))
    for phrase in others:
        if phrase != photos[number].phrase:
            return phrase
    raise UsageError("all photos have the same phrase: add others")


def region_scores(original: Tensor, decoded: Tensor, mask: NDArray[np.bool_], lpips: Lpips) -> Scores:
    """By the keys of ``METRICS``, of pictures ``[1, 3, H, W] float 0..1``. ``mask [H, W]`` is neither empty nor full."""
    with torch.inference_mode():
        distance = lpips.spatial(original, decoded)[0].numpy()
    errors = (original - decoded).square().mean(1)[0].numpy()
    return {
        "lpips_inside": float(distance[mask].mean()),
        "lpips_outside": float(distance[~mask].mean()),
        "lpips": float(distance.mean()),
        "psnr_inside": _psnr(errors[mask]),
        "psnr_outside": _psnr(errors[~mask]),
    }


def lift(weights: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """The share of ``weights [h, w]``, cells of the whole picture, that lies on ``mask [H, W]``, over its area's."""
    cells = torch.from_numpy(weights)[None, None]
    spread = F.interpolate(cells, mask.shape, mode="nearest")[0, 0].numpy()
    return float(spread[mask].sum() / spread.sum() / mask.mean())


def _focuses(photo: FocusPhoto, other: str, words: Words) -> dict[str, Focus | None]:
    """By what follows the profile in a variant's name."""
    return {
        "": None,
        PHRASE: words.place(photo.picture, photo.phrase),
        OTHER: words.place(photo.picture, other),
        MASK: Focus.of(photo.mask),
    }


def _placed(photo: FocusPhoto, other: str, focuses: Mapping[str, Focus | None]) -> Placed:
    own, wrong = (lift(found.weights, photo.mask) for name in (PHRASE, OTHER) if (found := focuses[name]))
    return Placed(photo.file, photo.phrase, other, float(photo.mask.mean()), own, wrong)


def _prepared(photo: FocusPhoto, words: Words) -> dict[str, PreparedWords]:
    """By profile, without a focus; ``taco`` listens to the captioner."""
    (guided,) = api.prepare([photo.picture], [EncodeOptions(profile="taco")], words=words)
    return {"base": PreparedWords(), "taco": guided}


def _rows(
    photo: FocusPhoto,
    bpp: float,
    prepared: Mapping[str, PreparedWords],
    focuses: Mapping[str, Focus | None],
    lpips: Lpips,
) -> list[VariantRow]:
    original, budget, rows = to_tensor(photo.picture), budget_bytes(bpp, photo.picture.size), []

    def score(data: bytes) -> Scores:
        return region_scores(original, to_tensor(api.decode(data, steps=0)), photo.mask, lpips)

    for profile, plain in prepared.items():
        for name, focus in focuses.items():
            focused = replace(plain, hints=replace(plain.hints, focus=focus))
            scored = at_budget(partial(_file, photo.picture, focused, profile), score, budget)
            rows.append(VariantRow(photo.file, bpp, ", ".join(filter(None, (profile, name))), budget, scored))
    return rows


def _file(picture: Image.Image, prepared: PreparedWords, profile: str, most: int) -> bytes:
    return api.assemble(picture, prepared, EncodeOptions(bytes=most, profile=profile)).data


def _psnr(errors: NDArray[np.float32]) -> float:
    error = float(errors.mean(dtype=np.float64))
    return min(-10 * math.log10(error), _MOST_PSNR) if error else _MOST_PSNR
