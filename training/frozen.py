# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A shipped latent model as training sees it: float networks on any device, its integer prior turned back into floats.

Latents are quantised as the codec does it (rounding around the prior's means, within each table's reach), so that what is
trained on them meets the same in use. Floats may round a value at an edge the other way; files never come from here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from picogram.latent.codec import prior_tensors, unpack_floats
from picogram.latent.floating import float_prior
from picogram.latent.guide import AdapterConfig
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import SCALE_COUNT, checkerboard


def shipped_latent(path: Path) -> tuple[LatentCodec, Tensor]:
    """The whole float model of a shipped file, and the reach ``[64]`` of its tables."""
    tensors = load_file(path)
    net = LatentCodec(adapter=AdapterConfig.of(tensors))
    floats = unpack_floats({k: v for k, v in tensors.items() if not k.startswith("prior.")})
    state = {k.replace("hyper_analysis.", "prior.", 1): v for k, v in floats.items()}
    integers = prior_tensors(tensors)
    like = net.prior.state_dict()
    state |= {f"prior.{k}": v for k, v in float_prior(integers, like).items()}
    net.load_state_dict(state)
    return net.eval().requires_grad_(False), integers["table_reach"].float()


class FrozenCodec(nn.Module):
    """Originals to what a decoder has of them."""

    reach: Tensor

    def __init__(self, path: Path) -> None:
        """``path``: a shipped latent model's weights."""
        super().__init__()
        self.net, reach = shipped_latent(path)
        self.register_buffer("reach", reach)

    @torch.no_grad()
    def forward(self, x: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Base pictures ``[B, 3, H, W]`` 0..1 in steps of 1/255 and latents ``[B, C, H/16, W/16]``, gains undone.

        ``x [B, 3, H, W]`` 0..1, sides multiples of 64; ``rate [B]`` 0..1.
        """
        gain = self.net.gain(rate)
        latent = self._quantised(self.net.analyse(x, rate).float() * gain, rate) / gain
        base = self.net.synthesis(latent, rate).float().clamp_(0, 1)
        return base.mul_(255).round_().div_(255), latent

    def _quantised(self, y: Tensor, rate: Tensor) -> Tensor:
        prior = self.net.prior
        mean, index = prior.hyper_parameters(rate)
        hyper = prior.hyper_synthesis(self._rounded(prior.hyper_analysis(y).float(), mean, index), rate)
        white, bases = checkerboard(y), prior.base_indices(rate)
        decoded: list[Tensor] = []
        for s, part in enumerate(y.split(prior.config.slices, 1)):
            known = torch.zeros_like(part)
            for colour, mask in enumerate((white, 1 - white)):
                mean, index = prior.nets[2 * s + colour](hyper, torch.cat([*decoded, known], 1))
                known = known + self._rounded(part, mean.float(), index.float() + bases[s]) * mask
            decoded.append(known)
        return torch.cat(decoded, 1)

    def _rounded(self, value: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        reach = self.reach[index.round().long().clamp(0, SCALE_COUNT - 1)]
        residual = value - mean
        rounded = residual.sign() * (residual.abs() + 0.5).floor()
        return rounded.clamp(-reach, reach) + mean
