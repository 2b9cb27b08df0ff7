# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Many drawings of one picture, seconds apart in quality: LPIPS, DISTS, PSNR and the rows that KIDs are made of.

    original ── Networks.against ──> Against ── each decoded picture ──> Measured

What concerns the original alone is computed once, and VGG's features serve DISTS and the second KID. VGG runs in
bfloat16 where the processor has it: the same offset for all drawings, so that differences stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from picogram.bench.kid import patch_features, vgg_rows
from picogram.bench.measuring import Backbones, to_tensor
from picogram.metrics.fidelity import psnr
from picogram.metrics.perceptual import lpips_distance
from picogram.models.store import features_file
from picogram.processor import has_fast_bfloat16
from picogram.semantics.features import FeatureNet

PATCH = 128
_MOST_PSNR = 100.0
_PIECE = 2**17
"""Numbers summed at a time."""


@dataclass(frozen=True)
class Measured:
    """LPIPS (alex), DISTS, PSNR in dB; and of each patch the features for the two KIDs, ``[N, D] float16``."""

    lpips: float
    dists: float
    psnr: float
    efficient: Tensor
    vgg: Tensor


class Networks:
    """What measures, loaded once. Raises ModelMissing and ModelDamaged."""

    def __init__(self, metrics: Path) -> None:
        """``metrics``: the folder of ``picogram.metrics.weights``."""
        self.backbones = Backbones(metrics, has_fast_bfloat16())
        self.features = FeatureNet(load_file(features_file())).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def against(self, original: Image.Image) -> Against:
        return Against(self, original)


class Against:
    """One original, to compare with."""

    @torch.inference_mode()
    def __init__(self, networks: Networks, original: Image.Image) -> None:
        self._networks, self._original = networks, original
        x = to_tensor(original)
        self._alex = networks.backbones.alex(x)
        features = networks.backbones.vgg(x)
        dists = networks.backbones.dists
        self._dists = DistsFrom(features, dists.alpha, dists.beta)
        self.rows = self._rows(x, features)
        """Of the original itself, as in ``Measured``."""

    @torch.inference_mode()
    def __call__(self, picture: Image.Image) -> Measured:
        """``picture``: RGB, of the original's size."""
        y, backbones = to_tensor(picture), self._networks.backbones
        lpips = lpips_distance(self._alex, backbones.alex(y), backbones.lpips.heads)
        features = backbones.vgg(y)
        loss = min(psnr(self._original, picture), _MOST_PSNR)
        return Measured(float(lpips), self._dists(features), loss, *self._rows(y, features))

    def _rows(self, x: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        sides = x.shape[2], x.shape[3]
        efficient = patch_features(self._networks.features, x, PATCH)
        return efficient.half(), vgg_rows(features[-2:], sides, PATCH).half()


class DistsFrom:
    """``dists_distance`` from one picture to many, several times as fast.

    What it asks of the first picture is computed once, and sums run over pieces that fit the processor's cache.
    """

    def __init__(self, features: Sequence[Tensor], alpha: Sequence[Tensor], beta: Sequence[Tensor]) -> None:
        """``features``: ``[1, C, h, w]`` at each depth, the picture itself first."""
        self._alpha, self._beta = alpha, beta
        self._levels = [_flat(level) for level in features]
        self._moments = [_moments(level, level)[:2] for level in self._levels]

    def __call__(self, features: Sequence[Tensor]) -> float:
        similarity = 0.0
        for a, (mean_a, square_a), level, alpha, beta in zip(
            self._levels, self._moments, features, self._alpha, self._beta, strict=True
        ):
            mean_b, square_b, product = _moments(_flat(level), a)
            means, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
            texture = (2 * means + 1e-6) / (squares + 1e-6)
            structure = (2 * (product - means) + 1e-6) / (square_a + square_b - squares + 1e-6)
            similarity += float((alpha[0] * texture + beta[0] * structure).sum())
        return 1 - similarity


def _flat(level: Tensor) -> Tensor:
    """``[1, C, h, w]`` to ``[h * w, C]``, without a copy where channels come last."""
    return level[0].permute(1, 2, 0).flatten(0, 1)


def _moments(b: Tensor, a: Tensor) -> Tensor:
    """Means ``[3, C]`` of ``b``, ``b * b`` and ``a * b``, each ``[N, C]``."""
    sums = torch.zeros(3, b.shape[1], dtype=torch.double)
    rows = max(1, _PIECE // b.shape[1])
    for x, y in zip(b.split(rows), a.split(rows), strict=True):
        x, y = x.float(), y.float()
        sums += torch.stack([x.sum(0), (x * x).sum(0), (x * y).sum(0)])
    return sums / len(b)
