# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses: in a batch every picture has to find its caption, and every caption its picture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(scores: Tensor) -> Tensor:
    """Nats of finding the diagonal of ``scores [B, B]`` in rows and in columns (van den Oord et al., InfoNCE, 2018)."""
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def whole_scores(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """``[B, N]`` of ``images [B, D]`` and ``texts [N, D]``."""
    return scale * images @ texts.T


def cell_scores(cells: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """``[B, N]`` of ``cells [B, n, D]`` and ``texts [N, D]``: a soft maximum over a picture's cells.

    It teaches cells to say what lies in them, though nobody says where that is.
    """
    with torch.autocast(cells.device.type, torch.bfloat16):
        products = cells.flatten(0, 1) @ texts.T
    scores = scale * products.float().view(*cells.shape[:2], -1)
    return scores.logsumexp(1) - math.log(cells.shape[1])
