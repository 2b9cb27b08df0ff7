# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From what is known of a picture to a few input embeddings of the language model (Liu et al., LLaVA, 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING_RMS = 0.125
"""Typical size of the language model's own embeddings; projections start there."""


class FeatureProjector(nn.Module):
    """Backbone features ``[B, n, d]`` to embeddings ``[B, n, width]``: two layers, a position each."""

    def __init__(self, tokens: int, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.first = nn.Linear(inputs, width)
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.second = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(EMBEDDING_RMS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(self.norm(x)) + self.place)
        return F.layer_norm(self.second(x), (x.shape[-1],)) * self.scale


class LatentProjector(nn.Module):
    """Pooled latents ``[B, 2C, 8, 8]`` to embeddings ``[B, 5, width]``: whole picture and quarters.

    Only layers that ``text/lm/context.py`` can repeat in exact integers: linear maps, 3x3 convolutions with zero
    padding, ReLU, sums; and an affine map of the inputs that makes them comparable.
    """

    offset: Tensor
    spread: Tensor

    def __init__(self, channels: int, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.first = nn.Conv2d(channels, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.down = nn.Conv2d(hidden, hidden + hidden // 2, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(hidden + hidden // 2, hidden + hidden // 2, 3, padding=1)
        self.quarter = nn.Linear(hidden + hidden // 2, width)
        self.whole = nn.Linear(hidden + hidden // 2, width)
        self.place = nn.Parameter(torch.randn(5, width) * 0.02)

    def calibrate(self, sample: Tensor) -> None:
        """Make inputs comparable by what they are in ``sample [N, 2C, 8, 8]``."""
        sample = sample.float()
        self.offset.copy_(sample.mean((0, 2, 3)))
        self.spread.copy_(sample.std((0, 2, 3)).clamp(min=1e-3))

    def features(self, grids: Tensor) -> Tensor:
        """The last grid, ``[B, D, 4, 4]``."""
        x = (grids - self.offset[:, None, None]) / self.spread[:, None, None]
        x = F.relu(self.first(x))
        x = x + F.relu(self.mix(x))
        x = F.relu(self.down(x))
        return x + F.relu(self.deep(x))

    def forward(self, grids: Tensor) -> Tensor:
        return self.from_features(self.features(grids))

    def from_features(self, x: Tensor) -> Tensor:
        """Embeddings of a last grid ``[B, D, 4, 4]``."""
        quarters = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.whole(x.mean((2, 3)))[:, None], self.quarter(quarters)), 1)
        return (tokens + self.place) * EMBEDDING_RMS
