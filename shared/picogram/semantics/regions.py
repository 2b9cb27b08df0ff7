# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Objects of a photograph: ImageNet classes under everyday names, and where the evidence for them lies.

    PIL image ── about 288x288 pixels in its own aspect ── FeatureNet ── spatial ─┐
    ┌─────────────────────────────────────────────────────────────────────────────┘
    ├─ score of a name = sqrt( probability in the whole photo * in the best window ), classes of one name added up
    ├─ class-activation map of the best name (Zhou et al., "Learning Deep Features for Discriminative
    │  Localization", 2016) ── enlarged smoothly for finer masks ── threshold ──> mask
    └─ again on what the mask leaves over, up to 3 times, while the score is high enough

Doubtful names are left out: many photographs have no object here. Floating point, for encoding only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from picogram.semantics.description import Region
from picogram.semantics.features import FeatureNet, preprocess

MAX_FOUND: Final = 3
MASK_SIDE: Final = 8

# Chosen on the last tenth of Flickr8k, by which names a person's captions bear out; on 500 other photos of it 150 of 161
# first names were borne out and 6 of 12 further ones.
MIN_SCORE: Final = 0.5
MIN_SCORE_OF_MORE: Final = 0.3
_CELL: Final = 32
_CELLS: Final = 9
_CELLS_RANGE: Final = (4, 20)
_WINDOW: Final = 0.6
_MASK_LEVEL: Final = 0.4
_MIN_LEFT: Final = 0.25
_MAX_OVERLAP: Final = 0.6

Describe = Callable[[Image.Image, str, npt.NDArray[np.bool_]], str]
"""Image, name, mask -> the detail of that object (may be empty)."""


def no_detail(image: Image.Image, name: str, mask: npt.NDArray[np.bool_]) -> str:
    """Leaves the detail empty."""
    return ""


@cache
def class_names() -> tuple[str | None, ...]:
    """The everyday name of each of the 1,000 ImageNet classes in order; one name may serve many classes.

    None: a class that is never named, since the network sees it where it is not, or the word would offend.
    """
    text = files("picogram.semantics").joinpath("class_names.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


@torch.inference_mode()
def find_regions(
    net: FeatureNet,
    image: Image.Image,
    *,
    describe: Describe = no_detail,
    limit: int = MAX_FOUND,
    side: int = MASK_SIDE,
) -> tuple[Region, ...]:
    """Up to ``limit`` objects of an "RGB" image, surest first, with masks over the whole picture.

    ``side``: of the masks, 8, 16, 32 or 64; which objects are found does not depend on it.
    """
    pixels = preprocess(image, _size_in_cells(*image.size)).unsqueeze(0).to(net.class_weight)
    spatial = net(pixels).spatial[0]
    found = locate(spatial, net.class_weight, net.class_bias, limit, side)
    return tuple(Region(name, describe(image, name, mask), mask) for name, mask in found)


def locate(
    spatial: Tensor, weight: Tensor, bias: Tensor, limit: int = MAX_FOUND, side: int = MASK_SIDE
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Names and masks ``[side,side]`` from ``spatial [1280,h,w]`` and the classifier ``[1000,1280]``, ``[1000]``."""
    names = _groups()[0]
    found: list[tuple[str, npt.NDArray[np.bool_]]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    left = torch.ones(spatial.shape[1:], device=spatial.device)
    while len(found) < limit and left.mean() >= _MIN_LEFT:
        scores, classes = _scores(spatial, left, weight, bias)
        best = int(scores.argmax())
        if scores[best] < (MIN_SCORE_OF_MORE if found else MIN_SCORE):
            break
        evidence = _activation(spatial, weight, classes, best) * left
        mask = _strong(F.adaptive_avg_pool2d(evidence[None], MASK_SIDE)[0])
        if _is_new(names[best], mask, found):
            found.append((names[best], mask))
            masks.append(mask if side == MASK_SIDE else _strong(_enlarged(evidence, side)))
        left = left * (evidence < _MASK_LEVEL * evidence.max())
    return [(name, mask) for (name, _), mask in zip(found, masks, strict=True)]


def _strong(cells: Tensor) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = (cells >= _MASK_LEVEL * cells.max()).cpu().numpy()
    return mask


def _enlarged(evidence: Tensor, side: int) -> Tensor:
    """Evidence ``[side,side]``. A finer picture would give more detail, but that of parts and of noise."""
    size = (side, side)
    return F.interpolate(evidence[None, None], size, mode="bicubic", antialias=True, align_corners=False)[
        0, 0
    ]


def _scores(spatial: Tensor, left: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the names 0..1 and probabilities of the classes, from the positions where ``left [h,w]`` is 1."""
    window = [max(1, round(side * _WINDOW)) for side in left.shape]
    share = F.avg_pool2d(left[None], window, 1).flatten()
    means = F.avg_pool2d((spatial * left)[None], window, 1)[0].flatten(1).T
    means = means[share >= _MIN_LEFT] / share[share >= _MIN_LEFT, None]
    whole = (spatial * left).sum((1, 2)) / left.sum()
    classes = F.linear(torch.cat((whole[None], means)), weight, bias).softmax(1)
    classes = (classes - 1 / classes.shape[1]).clamp_min(0)  # else 118 unlikely dogs add up to a likely one
    names, number = _groups()
    of_names = classes.new_zeros(len(classes), len(names) + 1)
    of_names = of_names.index_add_(1, number.to(classes.device), classes)[:, :-1]
    return (of_names[0] * of_names[1:].amax(0)).sqrt(), classes[0]


def _activation(spatial: Tensor, weight: Tensor, classes: Tensor, name: int) -> Tensor:
    """Evidence ``[h,w]`` for a name: its classes, weighted by their probabilities, against the mean class."""
    mix = torch.where(_groups()[1].to(classes.device) == name, classes, 0.0)
    contrast = (mix @ weight) / mix.sum() - weight.mean(0)
    return torch.einsum("c,chw->hw", contrast, spatial).clamp_min(0)


def _is_new(name: str, mask: npt.NDArray[np.bool_], found: list[tuple[str, npt.NDArray[np.bool_]]]) -> bool:
    """Neither the kind of thing (by its last word: "race car", "sports car") nor the place of a better object."""
    for other, place in found:
        if name.split()[-1] == other.split()[-1] or (mask & place).sum() > _MAX_OVERLAP * mask.sum():
            return False
    return True


def _size_in_cells(width: int, height: int) -> tuple[int, int]:
    """Width and height in whole steps of the network, of about the area and the aspect wanted."""
    low, high = _CELLS_RANGE
    root = (width / height) ** 0.5
    across, down = (min(max(round(_CELLS * r), low), high) for r in (root, 1 / root))
    return across * _CELL, down * _CELL


@cache
def _groups() -> tuple[tuple[str, ...], Tensor]:
    """The different names, and for each class the number of its name; one more than there are: none."""
    names = tuple(dict.fromkeys(name for name in class_names() if name is not None))
    numbers = [len(names) if name is None else names.index(name) for name in class_names()]
    return names, torch.tensor(numbers)
