# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Analysis and synthesis transforms of the latent codec: a linear path that learns nothing slowly, and residual
networks that learn the rest.

The linear path is the 16x16 Karhunen-Loeve transform of training patches. The networks beside it end in zero, so
that training starts from a working transform codec instead of from noise.

    x [B,3,H,W] 0..1 ─┬─ KLT 16x16, stride 16 ─────────────┬─ + ── y [B,C,H/16,W/16]
                      └─ stride 8 blocks ── stride 16 ─────┘
    y_hat ─┬─ transposed KLT ─────────────────────────────────────────┬─ + ── x_hat [B,3,H,W]
           └─ stride 16 ─┬───────────── + ── stride 8 ── stride 4 ────┘
                         └─ wide trunk ─┘

Everything is convolutional, so tiles with enough overlap give the same picture as the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16


@dataclass(frozen=True)
class TransformConfig:
    """Widths and depths. ``trunk_blocks`` 0: without one; ``trunk``: what its blocks are, a name of ``TRUNKS``."""

    latent_channels: int = 128
    encoder_widths: tuple[int, int] = (128, 160)  # at strides 8, 16
    encoder_blocks: tuple[int, int] = (2, 2)
    decoder_widths: tuple[int, int, int] = (192, 128, 64)  # at strides 16, 8, 4
    decoder_blocks: tuple[int, int, int] = (4, 4, 2)
    rate_anchors: int = 8
    trunk: str = "dense"
    trunk_width: int = 384
    trunk_blocks: int = 0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> TransformConfig:
        """Of a latent model's weights, packed or not."""
        entry = tensors.get("synthesis.trunk.enter.weight")
        if entry is None:
            return cls()
        prefix = "synthesis.trunk.blocks."
        numbers = {int(k.removeprefix(prefix).split(".")[0]) for k in tensors if k.startswith(prefix)}
        kind = "depthwise" if f"{prefix}0.deep.weight" in tensors else "dense"
        return cls(trunk=kind, trunk_width=entry.shape[0], trunk_blocks=len(numbers))

    @property
    def reach(self) -> int:
        """Latent positions that the synthesis sees in each direction."""
        trunk = 1 + self.trunk_blocks * TRUNKS[self.trunk].reach if self.trunk_blocks else 0
        _, middle, fine = self.decoder_blocks
        return 1 + 2 * self.decoder_blocks[0] + trunk + -(-(2 * 2 * middle + 2 * fine + 1) // 4)


class Residual(nn.Module):
    """``x + conv(act(conv(x)))``; the last convolution starts at zero."""

    reach = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        _zeroed(self.last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.last(F.leaky_relu(self.first(F.leaky_relu(x, 0.1)), 0.1))
        return out


class Depthwise(nn.Module):
    """A cheap 3x3 mixing and a wide pointwise one, both residual, both starting at zero (after DCVC-RT, Jia et al.,
    CVPR 2025, section 3)."""

    reach = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.leave = _zeroed(nn.Conv2d(width, width, 1))
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.narrow = _zeroed(nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.leave(self.deep(F.leaky_relu(self.enter(x), 0.1)))
        out: Tensor = x + self.narrow(F.leaky_relu(self.widen(x), 0.1))
        return out


TRUNKS: Final[Mapping[str, type[Residual] | type[Depthwise]]] = {"dense": Residual, "depthwise": Depthwise}


class Trunk(nn.Module):
    """Most of a synthesis' capacity: ``[B, c, h, w]`` to ``[B, out, h, w]`` at stride 16; its last layer starts at 0."""

    def __init__(self, config: TransformConfig, out: int) -> None:
        super().__init__()
        width, kind = config.trunk_width, TRUNKS[config.trunk]
        self.enter = nn.Conv2d(config.decoder_widths[0], width, 3, padding=1)
        self.rate = RateBias(width, config.rate_anchors)
        self.blocks = nn.Sequential(*(kind(width) for _ in range(config.trunk_blocks)))
        self.leave = _zeroed(nn.Conv2d(width, out, 1))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        out: Tensor = self.leave(self.blocks(self.rate(self.enter(x), rate)))
        return out


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width) for _ in range(depth)))


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def interpolate_anchors(table: Tensor, rate: Tensor) -> Tensor:
    """Rows of ``table [A, C]`` at continuous positions ``rate [B] 0..1``, linearly interpolated: ``[B, C]``."""
    position = rate.clamp(0, 1) * (table.shape[0] - 1)
    low = position.floor().clamp(max=table.shape[0] - 2).long()
    weight = (position - low)[:, None]
    return table[low] * (1 - weight) + table[low + 1] * weight


class RateBias(nn.Module):
    """Tells a network which rate it works at: a learned scale and shift per channel."""

    def __init__(self, width: int, anchors: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(anchors, 2 * width))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        scale, shift = interpolate_anchors(self.table, rate)[:, :, None, None].to(x.dtype).chunk(2, 1)
        return x * (1 + scale) + shift


class Analysis(nn.Module):
    """Picture to latent: ``[B, 3, H, W] 0..1`` (sides multiples of 16) to ``[B, C, H/16, W/16]``."""

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        wide, deep = config.encoder_widths
        self.linear = nn.Conv2d(3, config.latent_channels, STRIDE, STRIDE, bias=False)
        self.stem = nn.Conv2d(192, wide, 3, padding=1)
        self.fine = _blocks(wide, config.encoder_blocks[0])
        self.down = nn.Conv2d(4 * wide, deep, 1)
        self.rate = RateBias(deep, config.rate_anchors)
        self.coarse = _blocks(deep, config.encoder_blocks[1])
        self.head = _zeroed(nn.Conv2d(deep, config.latent_channels, 3, padding=1))

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The linear latent and the features at stride 8 of ``x`` around 0, both independent of the rate."""
        return self.linear(x), self.fine(self.stem(F.pixel_unshuffle(x, 8)))

    def narrow(self, features: Tensor) -> Tensor:
        """Features ``[B, c, 2h, 2w]`` at stride 8 to ``[B, c', h, w]`` at stride 16."""
        out: Tensor = self.down(F.pixel_unshuffle(features, 2))
        return out

    def after_rate(self, linear: Tensor, features: Tensor, rate: Tensor) -> Tensor:
        """The latent at a rate ``[B] 0..1``."""
        out: Tensor = linear + self.head(self.coarse(self.rate(features, rate)))
        return out

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        linear, features = self.look(x - 0.5)
        return self.after_rate(linear, self.narrow(features), rate)


class Synthesis(nn.Module):
    """Latent to picture: ``[B, C, h, w]`` to ``[B, 3, 16h, 16w]``, not clamped."""

    spread: Tensor

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        deep, middle, shallow = config.decoder_widths
        self.linear = nn.ConvTranspose2d(config.latent_channels, 3, STRIDE, STRIDE, bias=False)
        self.register_buffer("spread", torch.ones(1, config.latent_channels, 1, 1))
        self.stem = nn.Conv2d(config.latent_channels, deep, 3, padding=1)
        self.rate = RateBias(deep, config.rate_anchors)
        self.coarse = _blocks(deep, config.decoder_blocks[0])
        self.trunk = Trunk(config, 4 * middle) if config.trunk_blocks else None
        self.up8 = nn.Conv2d(deep, 4 * middle, 1)
        self.middle = _blocks(middle, config.decoder_blocks[1])
        self.up4 = nn.Conv2d(middle, 4 * shallow, 1)
        self.fine = _blocks(shallow, config.decoder_blocks[2])
        self.head = _zeroed(nn.Conv2d(shallow, 48, 3, padding=1))

    def forward(self, y: Tensor, rate: Tensor) -> Tensor:
        h = self.coarse(self.rate(self.stem(y / self.spread), rate))
        wide = self.up8(h) if self.trunk is None else self.up8(h) + self.trunk(h, rate)
        h = self.middle(F.pixel_shuffle(wide, 2))
        h = self.fine(F.pixel_shuffle(self.up4(h), 2))
        out: Tensor = self.linear(y) + F.pixel_shuffle(self.head(h), 4) + 0.5
        return out


def init_from_klt(analysis: Analysis, synthesis: Synthesis, basis: Tensor, deviations: Tensor) -> None:
    """Start the linear paths from an orthonormal patch basis.

    ``basis``: ``[C, 3, 16, 16]``, rows of the Karhunen-Loeve transform by falling energy; ``deviations``: ``[C]``,
    the standard deviation of each coefficient over training patches.
    """
    with torch.no_grad():
        analysis.linear.weight.copy_(basis)
        synthesis.linear.weight.copy_(basis)
        synthesis.spread.copy_(deviations.view(1, -1, 1, 1))


def klt_of_patches(patches: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Basis ``[components, 3, 16, 16]`` and deviations ``[components]`` of ``patches [N, 3, 16, 16]`` around 0.5."""
    flat = (patches.double() - 0.5).flatten(1)
    energy, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    order = energy.argsort(descending=True)[:components]
    basis = vectors[:, order].T.reshape(components, 3, STRIDE, STRIDE)
    return basis.float(), energy[order].clamp(min=1e-8).sqrt().float()
