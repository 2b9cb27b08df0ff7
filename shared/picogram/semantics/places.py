# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where a picture shows what words name: a map of several kinds of evidence. Floating point, for encoding only.

    picture ── features at 3 scales ─┬─ how much is there to see at all (their length)           ┐
    words ──┬─ names of classes ─────┼─ class activations (Zhou et al., CVPR 2016)                ├─ sum of scores
            ├─ joint image-text space┴─ cosine with the words against that with usual ones        │
            ├─ colours ── distance in CIELAB to the colour named                                  │
            └─ sides ("left", "top") ── how far to that side                                      ┘
    sum ── spread over cells of like colour nearby (Tomasi and Manduchi's bilateral filter, ICCV 1998) ── upper part

No part of it knows a thing that has no class, no colour and is not what catches the eye: then it errs. How often, and
what that costs, is measured (docs/profiles/taco.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from picogram.errors import UsageError
from picogram.latent.focus import Focus
from picogram.semantics.colours import colour_evidence, lab_cells
from picogram.semantics.features import FeatureNet, Features, load_features, preprocess
from picogram.semantics.joint import load_joint
from picogram.semantics.regions import class_names

SCALES: Final = (7, 10, 14)
"""Cells along a side of the square that a picture is squashed to: what is large and what is small."""
CELLS: Final = 32
"""Rows and columns of the map."""
USUAL: Final = (
    "a photo",
    "the background",
    "a place",
    "grass",
    "sky",
    "a wall",
    "water",
    "a room",
    "a street",
    "trees",
    "the floor",
    "a person",
)
_CELL: Final = 32
_SHARPNESS: Final = 14.0
_CLASS, _JOINT, _COLOUR, _SIDE = 0.5, 0.3, 1.0, 1.0
"""Weights of the kinds of evidence, each in standard deviations over the picture, beside one for what is there to see."""
_LIKENESS: Final = 10.0
"""In units of CIELAB."""
_NEARNESS: Final = 0.1
"""In sides of the picture."""
_LOW, _HIGH = 0.6, 0.8
"""Shares of the picture that matter least, and all but that which matters most."""
_NOISE: Final = 1e-4
"""Differences below this are rounding."""
_SIDES: Final = {
    "left": (0, -1),
    "right": (0, 1),
    "top": (-1, 0),
    "upper": (-1, 0),
    "bottom": (1, 0),
    "lower": (1, 0),
}


class FeatureJoint(Protocol):
    """What is needed of a joint space."""

    def text(self, captions: Sequence[str]) -> Tensor:
        """As ``JointSpace.text``."""

    def cells(self, features: Features) -> Tensor:
        """As ``JointSpace.cells``."""


class Places:
    """Features and the joint space together. Safe to share between threads."""

    def __init__(self, net: FeatureNet, joint: FeatureJoint) -> None:
        """``joint``: over the features of ``net``."""
        self.net, self.joint = net, joint

    @torch.inference_mode()
    def find(self, picture: Image.Image, words: str) -> Focus:
        """The map of an RGB picture. A fifth of it is in focus whatever the words are: nobody knows if they fit.

        Raises UsageError for a picture in which all is alike.
        """
        texts = self.joint.text([words, *USUAL])
        evidence = torch.stack([self._at_scale(picture, words, texts, cells) for cells in SCALES]).mean(0)
        colours = lab_cells(picture, CELLS)
        if (found := colour_evidence(colours, words)) is not None:
            evidence = evidence + _COLOUR * scores(found)
        if (found := side_evidence(words)) is not None:
            evidence = evidence + _SIDE * scores(found)
        evidence = spread(evidence, colours)
        low, high = torch.quantile(evidence, torch.tensor([_LOW, _HIGH]))
        if high - low < _NOISE:
            raise UsageError("nothing in this picture can be told from the rest by words")
        weights = ((evidence - low) / (high - low)).clamp(0, 1)
        return Focus.of(np.array(weights.numpy(), np.float32))

    def _at_scale(self, picture: Image.Image, words: str, texts: Tensor, cells: int) -> Tensor:
        """Evidence ``[CELLS, CELLS]`` but for colours and sides; ``texts``: vectors of the words and of usual ones."""
        features = self.net(preprocess(picture, (cells * _CELL, cells * _CELL))[None])
        total = scores(features.spatial[0].norm(dim=0))
        fits = (_SHARPNESS * self.joint.cells(features) @ texts.T).softmax(-1)[..., 0]
        total = total + _JOINT * scores(fits)
        if classes := classes_of(words):
            chances = features.logits[0].softmax(0)[list(classes)] + 1e-6
            direction = chances @ self.net.class_weight[list(classes)] / chances.sum()
            direction = direction - self.net.class_weight.mean(0)
            active = torch.einsum("c,chw->hw", direction, features.spatial[0])
            total = total + _CLASS * scores(active)
        size = (CELLS, CELLS)
        return F.interpolate(total[None, None], size, mode="bicubic", align_corners=False)[0, 0]


def scores(evidence: Tensor) -> Tensor:
    """In standard deviations from the mean; zeros where there are no differences."""
    deviation = evidence.std()
    return (evidence - evidence.mean()) / deviation if deviation > _NOISE else torch.zeros_like(evidence)


def terms(words: str) -> list[str]:
    """Lower-case words without what they end in."""
    bare = (word.strip(".,;:!?\"'()") for word in words.lower().replace("\u2019", "'").split())
    return [word.removesuffix("'s") for word in bare]


@cache
def classes_of(words: str) -> tuple[int, ...]:
    """ImageNet classes whose everyday name shares a word with ``words``."""
    wanted = set(terms(words)) - {"the", "a", "an", "of", "on", "in", "and", "with", "at"}
    return tuple(i for i, name in enumerate(class_names()) if name and wanted & set(terms(name)))


def side_evidence(words: str) -> Tensor | None:
    """How far each cell ``[CELLS, CELLS]`` is to the sides that are named; None if there are none."""
    named = [_SIDES[term] for term in terms(words) if term in _SIDES]
    if not named:
        return None
    line = torch.linspace(-1, 1, CELLS)
    down, right = (sum(side[axis] for side in named) for axis in (0, 1))
    return down * line[:, None] + right * line[None, :]


def spread(evidence: Tensor, colours: Tensor) -> Tensor:
    """Evidence ``[n, n]`` averaged over cells that are near and of like colour, twice; ``colours [n, n, 3]``."""
    side = len(evidence)
    line = torch.linspace(0, 1, side)
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2)
    flat = colours.reshape(-1, 3)
    far = (torch.cdist(flat, flat) / _LIKENESS).square() + (torch.cdist(places, places) / _NEARNESS).square()
    weights = torch.exp(-far / 2)
    weights = weights / weights.sum(1, keepdim=True)
    return (weights @ (weights @ evidence.reshape(-1, 1))).view(side, side)


@cache
def load_places() -> Places:
    """The embedded networks, one set per process. Raises ModelMissing or ModelDamaged."""
    return Places(load_features(), load_joint())
