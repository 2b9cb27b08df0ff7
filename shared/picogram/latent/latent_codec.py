# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The trainable latent codec: transforms, gains and entropy model in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from picogram.latent.guide import AdapterConfig, Guide, TextAdapter
from picogram.latent.prior import Prior, PriorConfig, index_of_scale
from picogram.latent.transforms import (
    Analysis,
    Synthesis,
    TransformConfig,
    init_from_klt,
    interpolate_anchors,
)

COARSEST_STEP, FINEST_STEP = 3.0, 0.3


class LatentCodec(nn.Module):
    """Image codec with a continuous rate knob (gain units: Cui et al., CVPR 2021).

    x ── analysis ── * gain(rate) ── prior: round, count bits ── / gain(rate) ── synthesis ── x_hat
    """

    def __init__(
        self,
        transforms: TransformConfig | None = None,
        prior: PriorConfig | None = None,
        adapter: AdapterConfig | None = None,
    ) -> None:
        """``adapter``: of the text adapter; None: the model takes no captions."""
        super().__init__()
        transforms = transforms or TransformConfig()
        self.analysis = Analysis(transforms)
        self.synthesis = Synthesis(transforms)
        self.prior = Prior(prior or PriorConfig())
        self.adapter = TextAdapter(adapter) if adapter else None
        steps = torch.linspace(COARSEST_STEP, FINEST_STEP, 2).log()
        log_gain = -torch.linspace(steps[0], steps[1], transforms.rate_anchors)
        self.log_gain = nn.Parameter(log_gain[:, None].repeat(1, transforms.latent_channels))

    def start_from_klt(self, basis: Tensor, deviations: Tensor) -> None:
        """Start the linear paths from ``basis [C, 3, 16, 16]``, orthonormal, with ``deviations [C]`` of its coefficients
        over training patches, and the prior from those."""
        init_from_klt(self.analysis, self.synthesis, basis, deviations)
        with torch.no_grad():
            self.prior.index_base.copy_(index_of_scale(self.log_gain.exp() * deviations * 0.5))

    def gain(self, rate: Tensor) -> Tensor:
        """Steps per latent unit at ``rate [B] 0..1``: ``[B, C, 1, 1]``."""
        return interpolate_anchors(self.log_gain, rate).exp()[:, :, None, None]

    def analyse(self, x: Tensor, rate: Tensor, guide: Guide | None = None) -> Tensor:
        """The latent ``[B, C, H/16, W/16]``, in its own units, of ``x [B, 3, H, W] 0..1``."""
        if self.adapter is None:
            out: Tensor = self.analysis(x, rate)
            return out
        tokens = self.adapter.read(guide or Guide.none(len(x), self.adapter.config.text_width, x.device))
        linear, features = self.analysis.look(self.adapter.at_pixels(x - 0.5, tokens))
        tokens = self.adapter.heard(tokens, self.adapter.summary(features))
        features = self.analysis.narrow(self.adapter.at_features(features, tokens))
        return self.analysis.after_rate(linear, features, rate)

    def forward(
        self, x: Tensor, rate: Tensor, noisy: bool = True, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """``x [B, 3, H, W] 0..1`` (sides multiples of 64), ``rate [B] 0..1``: ``x_hat`` and bits ``[B]``."""
        y_hat, bits = self.latents(x, rate, noisy, guide)
        return self.synthesis(y_hat, rate).float(), bits

    def latents(
        self,
        x: Tensor,
        rate: Tensor,
        noisy: bool = True,
        guide: Guide | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the decoder gets, ``[B, C, H/16, W/16]`` with gains undone, and bits ``[B]``; ``kept``: see ``Prior``."""
        gain = self.gain(rate)
        y_hat, bits = self.prior(self.analyse(x, rate, guide).float() * gain, rate, noisy, kept)
        return y_hat / gain, bits
