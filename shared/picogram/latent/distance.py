# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How far a decoded picture is from its original, by position, with what every installation has: pixels, and features
of the codec's own analysis, which was trained to keep what LPIPS and DISTS see.

Features are brought to unit length, as in LPIPS (Zhang et al., CVPR 2018): what is faint counts as much as what is
strong. Pixels alone would make pictures softer: PSNR would rise and every perceptual metric get worse.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.latent.latent_codec import LatentCodec
from picogram.latent.transforms import STRIDE
from picogram.processor import Placement

T = TypeVar("T", float, Tensor)
_FINE: Final = 8
"""Stride of the features."""
_FLOOR: Final = 0.05
"""Of a feature vector's squared length, in means over the picture: what is fainter is noise."""
SHARES: Final = (1.0, 0.5)
"""Of features and of pixels, each in units of the distance at the start."""


class Distance:
    """Distance of decoded pictures from one original, by position of the latent, with gradients."""

    def __init__(
        self,
        net: LatentCodec,
        original: npt.NDArray[np.uint8],
        placement: Placement,
        importance: Tensor | None = None,
    ) -> None:
        """``original [16 h, 16 w, 3]``; ``placement``: where ``net`` lies, and what it computes in here; ``importance
        [1, 1, h, w]``: what each position counts, None: 1."""
        self.net, self.placement, self.importance = net, placement, importance
        pixels = torch.from_numpy(np.ascontiguousarray(original)).to(placement.device)
        self.pixels = pixels.permute(2, 0, 1)[None].float().div_(255)
        # half the time; the search needs no last bits, for it sees what its moves do
        with torch.no_grad(), placement.autocast():
            features = F.leaky_relu(net.analysis.look(self.pixels - 0.5)[1].float(), 0.1)
            self.floor = _FLOOR * features.square().sum(1).mean()
            self.features = self._unit(features)

    def __call__(self, latent: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Of the picture of ``latent [1, C, h, w]``, gains undone: by features and by pixels, ``[1, 1, h, w]`` each."""
        with self.placement.autocast():
            picture = self.net.synthesis(latent, rate).float()
            features = self.net.analysis.look(picture.clamp(0, 1) - 0.5)[1]
        unit = self._unit(F.leaky_relu(features.float(), 0.1))
        far = _pooled((unit - self.features).square(), STRIDE // _FINE)
        near = _pooled((picture - self.pixels).square(), STRIDE)
        return (far, near) if self.importance is None else (far * self.importance, near * self.importance)

    @staticmethod
    def joined(features: T, pixels: T) -> T:
        """One distance, 1 at the start if both are."""
        return (SHARES[0] * features + SHARES[1] * pixels) / sum(SHARES)

    def _unit(self, features: Tensor) -> Tensor:
        return features * (features.square().sum(1, keepdim=True) + self.floor).rsqrt()


def _pooled(square: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(square.mean(1, keepdim=True), side)
