# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The float entropy model, for training: hyperprior plus channel slices and checkerboard context (Minnen and Singh,
ICIP 2020; He et al., CVPR 2021 and 2022). Files are coded by its integer twin in ``exact_prior``.

    y [B,C,h,w] ── hyper analysis ── z [B,Cz,h/4,w/4] ── round ── hyper synthesis ── h ──┐
    per slice s, first the white squares, then the black ones:                           │
        (mean, scale index) = net_s(h, everything decoded so far);  y_hat = round(y - mean) + mean

All values are in units of the quantisation step: gains have been applied. A scale index is a position in the table
``scale_of_index``; the networks predict the index itself, so that the integer twin needs no logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picogram.latent.transforms import interpolate_anchors

SCALE_COUNT = 64
SCALE_MIN, SCALE_MAX = 0.11, 32.0
HYPER_FACTOR = 4  # latent positions per side of a hyper-latent position


_LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_COUNT - 1)


def scale_of_index(index: Tensor) -> Tensor:
    """Standard deviation at a (fractional) scale index."""
    return SCALE_MIN * torch.exp(index * _LOG_STEP)


def index_of_scale(scale: Tensor) -> Tensor:
    """Inverse of ``scale_of_index``, clamped to the table."""
    return ((scale / SCALE_MIN).log() / _LOG_STEP).clamp(0, SCALE_COUNT - 1)


@dataclass(frozen=True)
class PriorConfig:
    """Widths; the defaults are the shipped model."""

    slices: tuple[int, ...] = (16, 16, 32, 64)
    hyper_channels: int = 48
    hyper_width: int = 96
    context_width: int = 96
    hidden_width: int = 128
    rate_anchors: int = 8


class SliceNet(nn.Module):
    """Mean and scale index of one slice on one colour of the checkerboard."""

    def __init__(self, config: PriorConfig, decoded: int, size: int) -> None:
        super().__init__()
        self.context = nn.Conv2d(decoded, config.context_width, 3, padding=1)
        self.mix = nn.Conv2d(config.context_width + config.hyper_width, config.hidden_width, 1)
        self.head = nn.Conv2d(config.hidden_width, 2 * size, 1)
        nn.init.zeros_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, hyper: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        context = F.relu(self.context(decoded))
        mean, index = self.head(F.relu(self.mix(torch.cat([context, hyper], 1)))).chunk(2, 1)
        return mean, index


def checkerboard(like: Tensor) -> Tensor:
    """1 on the white squares (row + column even), 0 elsewhere: ``[1, 1, h, w]``."""
    rows = torch.arange(like.shape[2], device=like.device)[:, None]
    cols = torch.arange(like.shape[3], device=like.device)[None, :]
    return ((rows + cols) % 2 == 0).to(like.dtype)[None, None]


class Prior(nn.Module):
    """Rate of a latent ``[B, C, h, w]`` in bits, differentiable, and the latent that a decoder finds; see ``forward``."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, latent = config.hyper_width, sum(config.slices)
        self.hyper_in = nn.Conv2d(latent, width, 3, padding=1)
        self.hyper_mid = nn.Conv2d(4 * width, width, 1)
        self.hyper_out = nn.Conv2d(4 * width, config.hyper_channels, 1)
        self.hyper_up = nn.Conv2d(config.hyper_channels, 4 * width, 3, padding=1)
        self.hyper_last = nn.Conv2d(width, 4 * width, 1)
        self.hyper_mean = nn.Parameter(torch.zeros(config.rate_anchors, config.hyper_channels))
        self.hyper_index = nn.Parameter(torch.full((config.rate_anchors, config.hyper_channels), 10.0))
        self.rate_shift = nn.Parameter(torch.zeros(config.rate_anchors, width))
        self.index_base = nn.Parameter(torch.full((config.rate_anchors, latent), 20.0))
        nets, done = [], 0
        for size in config.slices:
            done += size
            nets += [SliceNet(config, done, size), SliceNet(config, done, size)]
        self.nets = nn.ModuleList(nets)

    def hyper_analysis(self, y: Tensor) -> Tensor:
        h = F.relu(self.hyper_in(y))
        h = F.relu(self.hyper_mid(F.pixel_unshuffle(h, 2)))
        out: Tensor = self.hyper_out(F.pixel_unshuffle(h, 2))
        return out

    def hyper_synthesis(self, z: Tensor, rate: Tensor) -> Tensor:
        h = F.relu(F.pixel_shuffle(self.hyper_up(z), 2))
        h = F.pixel_shuffle(self.hyper_last(h), 2)
        shift = interpolate_anchors(self.rate_shift, rate)[:, :, None, None]
        return F.relu(h + shift.to(h.dtype))

    def hyper_parameters(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        mean = interpolate_anchors(self.hyper_mean, rate)[:, :, None, None]
        return mean, interpolate_anchors(self.hyper_index, rate)[:, :, None, None]

    def base_indices(self, rate: Tensor) -> tuple[Tensor, ...]:
        """Starting point of each slice's scale indices at a rate: ``[B, size, 1, 1]`` each."""
        base = interpolate_anchors(self.index_base, rate)[:, :, None, None]
        parts: tuple[Tensor, ...] = base.split(self.config.slices, 1)
        return parts

    def forward(
        self, y: Tensor, rate: Tensor, noisy: bool = True, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``y [B, C, h, w]`` in steps (h, w multiples of 4): the decoded ``y_hat`` and bits per sample ``[B]``.

        ``kept [B]``: how many slices of each sample are coded; of the others a decoder has the means. None: all.
        """
        mean_z, index_z = self.hyper_parameters(rate)
        z = self.hyper_analysis(y).float()
        z_hat, bits = quantise(z, mean_z, index_z, noisy)
        hyper = self.hyper_synthesis(z_hat, rate)
        total = bits.sum((1, 2, 3))
        white, bases = checkerboard(y), self.base_indices(rate)
        decoded: list[Tensor] = []
        for s, part in enumerate(y.split(self.config.slices, 1)):
            known = torch.zeros_like(part)
            coded = None if kept is None else (kept > s).to(part.dtype)[:, None, None, None]
            for colour, mask in enumerate((white, 1 - white)):
                mean, index = self.nets[2 * s + colour](hyper, torch.cat([*decoded, known], 1))
                mean = mean.float()
                value, bits = quantise(part, mean, index.float() + bases[s], noisy)
                if coded is not None:
                    value, bits = mean + (value - mean) * coded, bits * coded
                known = known + value * mask
                total = total + (bits * mask).sum((1, 2, 3))
            decoded.append(known)
        return torch.cat(decoded, 1), total


def quantise(value: Tensor, mean: Tensor, index: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
    """Round around the mean with a straight-through gradient; bits by noise (training) or by rounding."""
    residual = value - mean
    rounded = residual + (residual.round() - residual).detach()
    sample = residual + torch.empty_like(residual).uniform_(-0.5, 0.5) if noisy else rounded
    return rounded + mean, code_length(sample, index)


def code_length(residual: Tensor, index: Tensor) -> Tensor:
    """Bits of integers under a zero-mean logistic distribution at a scale index.

    Uses sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which never underflows: far outliers keep
    their gradient. The shipped tables are measured afterwards, so the family only shapes training.
    """
    spread = scale_of_index(bounded(index, 0.0, SCALE_COUNT - 1.0)) * (math.sqrt(3) / math.pi)
    magnitude = residual.abs()
    upper, lower = (0.5 - magnitude) / spread, (-0.5 - magnitude) / spread
    nats = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log1p(-torch.exp(-1 / spread))
    return nats * (-1 / math.log(2))


class _Bounded(torch.autograd.Function):
    """Clamp whose gradient still pulls values back inside."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)  # type: ignore[attr-defined]
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.bounds  # type: ignore[attr-defined]
        passes = ((x >= low) | (grad < 0)) & ((x <= high) | (grad > 0))
        return grad * passes, None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """``x.clamp(low, high)`` that keeps the gradients which lead back into the interval."""
    return _Bounded.apply(x, low, high)  # type: ignore[no-any-return,no-untyped-call]
