# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Attention guidance: making a stage's words act inside its mask (profile ``sedic``: docs/profiles/sedic.md).

``bias`` pushes attention logits. ``gradient`` lowers, before a step, the energy

    E = mean over the words of (1 - sum(A M) / sum(A))^2        A: attention to a word, averaged over heads; M: the mask

averaged over the layers that the network shows (Chen et al., "Training-free layout control with cross-attention
guidance", WACV 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.diffusion.denoiser import AttentionGuide

_SMALL: Final = 1e-6


def bias(mask: Tensor, words: Tensor, strength: float) -> AttentionGuide:
    """Logits of ``words [B, T]`` get ``strength`` more where ``mask [B, 1, H, W]`` is 1, less where it is 0."""

    def guide(logits: Tensor) -> Tensor:
        place = 2 * _resized(mask, logits) - 1
        return logits + strength * place[..., None] * words[:, None, None, None].to(place)

    return guide


class Energy:
    """A guide that changes nothing and adds up the energy of each picture."""

    def __init__(self, mask: Tensor, words: Tensor) -> None:
        self._mask, self._words = mask, words
        self._parts: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        attention = logits.float().softmax(-1).mean(1)
        place = _resized(self._mask, logits)[:, 0, :, :, None]
        share = (attention * place).sum((1, 2)) / (attention.sum((1, 2)) + _SMALL)
        words = self._words.to(share)
        self._parts.append(((1 - share).square() * words).sum(1) / words.sum(1).clamp_min(1))
        return logits

    def values(self) -> Tensor:
        """``[B]``, 0 to 1; 0 where there are no words, or no layer was shown."""
        return torch.stack(self._parts).mean(0) if self._parts else self._mask.new_zeros(len(self._mask))


def descend(
    x: Tensor,
    predict: Callable[[Tensor, AttentionGuide], Tensor],
    energy: Callable[[], Energy],
    deviation: float,
    *,
    scale: float,
    threshold: float,
    iterations: int,
) -> Tensor:
    """``x`` moved until the energy of each picture is at most ``threshold``, ``iterations`` times at most.

    ``predict(x, guide)`` runs the network; ``deviation`` is that of the noise.
    """
    for _ in range(iterations):
        with torch.enable_grad():
            moving = x.detach().requires_grad_(True)
            seen = energy()
            predict(moving, seen)
            values = seen.values()
            active = values > threshold
            if not values.requires_grad or not active.any():
                break
            (gradient,) = torch.autograd.grad(scale * values[active].sum(), moving)
        x = x - deviation**2 * gradient
    return x


def _resized(mask: Tensor, logits: Tensor) -> Tensor:
    """``[B, 1, h, w]`` for the positions of a layer."""
    return F.interpolate(mask.float(), logits.shape[2:4], mode="area")
