# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From residuals to the latent that a decoder finds and to bits, with gradients; and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from picogram.latent.prior import Prior, checkerboard, code_length


def unfold(prior: Prior, residuals: Tensor, z: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``residuals [1, C, h, w]``, whole numbers, and decoded ``z [1, Cz, h/4, w/4]``, at ``rate [1]`` 0..1.

    Gives the latent in steps, its bits by position ``[1, 1, h, w]`` and its scale indices ``[1, C, h, w]``. Gradients
    know what a residual does to the latent and to the bits of others, not what it costs itself.
    """
    fixed, bits = residuals.detach(), torch.zeros_like(residuals[:, :1])
    indices = torch.zeros_like(residuals)

    def value(part: slice, mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        nonlocal bits
        bits = bits + (code_length(fixed[:, part], index) * mask).sum(1, keepdim=True)
        indices[:, part] += index.detach() * mask
        return residuals[:, part] + mean

    return _walked(prior, residuals, z, rate, value), bits, indices


def residuals_of(prior: Prior, y: Tensor, z: Tensor, rate: Tensor) -> Tensor:
    """Those of a decoded latent ``y`` in steps: the inverse of ``unfold``, but for what floats know less well."""
    residuals = torch.zeros_like(y)

    def value(part: slice, mean: Tensor, _: Tensor, mask: Tensor) -> Tensor:
        residuals[:, part] += (y[:, part] - mean).round() * mask
        return y[:, part]

    _walked(prior, y, z, rate, value)
    return residuals


def _walked(
    prior: Prior,
    like: Tensor,
    z: Tensor,
    rate: Tensor,
    value: Callable[[slice, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The latent of what ``value`` says of each slice of channels, given mean, index and the squares that are meant."""
    hyper = prior.hyper_synthesis(z, rate)[:, :, : like.shape[2], : like.shape[3]]
    white, decoded, start = checkerboard(like), list[Tensor](), 0
    for number, base in enumerate(prior.base_indices(rate)):
        part = slice(start, start + base.shape[1])
        known = torch.zeros_like(like[:, part])
        for colour, mask in enumerate((white, 1 - white)):
            mean, index = prior.nets[2 * number + colour](hyper, torch.cat([*decoded, known], 1))
            known = known + value(part, mean, index + base, mask) * mask
        decoded.append(known)
        start = part.stop
    return torch.cat(decoded, 1)
