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
