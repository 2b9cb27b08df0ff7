# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The joint image-text loss (TACO, Lee et al., ICML 2024, section 3.3), per sample.

    L_j = L_con(f_I(x_hat), f_T(c)) + beta * || f_I(x) - f_I(x_hat) ||

f_I and f_T are frozen. L_con is the mean of two cross-entropies: each picture has to find its caption among all of the
batch and others, and each caption its picture among the batch. The norm is each sample's own, not the batch's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(images: Tensor, texts: Tensor, others: Tensor, scale: Tensor | float) -> Tensor:
    """L_con ``[B]`` in nats of unit vectors ``images [B, D]``, their captions ``texts [B, D]`` and ``others [N, D]``."""
    own = torch.arange(len(images), device=images.device)
    found = F.cross_entropy(scale * images @ torch.cat([texts, others]).T, own, reduction="none")
    finding = F.cross_entropy(scale * texts @ images.T, own, reduction="none")
    return (found + finding) / 2


def drift(images: Tensor, decoded: Tensor) -> Tensor:
    """``|| f_I(x) - f_I(x_hat) ||`` ``[B]`` of ``[B, D]`` both."""
    # the root's slope at zero has no limit
    return ((images - decoded).square().sum(1) + 1e-8).sqrt()
