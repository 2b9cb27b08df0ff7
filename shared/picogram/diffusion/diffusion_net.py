# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The network of the embedded diffusion model: it predicts the original from a partly restored picture.

    base / 4 [B, 3, H/4, W/4] ──────────────────────────────── first ──┐
    base less that, unshuffled by 4 ── conv ───────────────────────────┤
    x_t less base, unshuffled by 4 ── conv ────────────────────────────┼── Real-ESRGAN's trunk (``rrdb``) ── picture
    decoded latent ── stem: stride 16 (cross-attention), 8, 4 ── conv ─┘        │        │                      │
    time, rate, caption ── a vector ── a scale and a shift in every block ──────┘        └── share of base ─────┴── clean

The trunk starts from published weights, the stem from the codec's synthesis (``start_from_synthesis``). All that joins
the trunk does so through layers that start at zero: an untrained network is Real-ESRGAN on the small base picture.
Where the base picture's own detail is better than the trunk's, a learnt share of it goes into the output. No
normalisation and no attention over positions of the picture, so tiles agree but for the trunk's reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picogram.diffusion.conditioning import EncodedText, TextEncoder, WordVectors
from picogram.diffusion.denoiser import AttentionGuide
from picogram.diffusion.rrdb import RRDBTrunk
from picogram.latent.transforms import STRIDE, RateBias, Residual, Synthesis

PATCH = 4
"""Pixels a side of one position of the trunk."""
ALIGN = STRIDE
"""Picture sides must be multiples of this."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Widths and depths; the defaults are the shipped model."""

    width: int = 64
    growth: int = 32
    blocks: int = 8
    stem_widths: tuple[int, int, int] = (192, 128, 64)  # at strides 16, 8, 4, as the codec's synthesis
    stem_blocks: tuple[int, int, int] = (4, 4, 2)
    rate_anchors: int = 8
    latent_channels: int = 128
    vector: int = 128
    heads: int = 4
    word_width: int = 576
    text_width: int = 192
    text_layers: int = 2


class GuidedCrossAttention(nn.Module):
    """Positions of ``x [B, C, h, w]`` look at the caption; gives ``x`` and what they find, in the same shape.

    Logits are explicit, so that an ``AttentionGuide`` can see and bend them. The last layer starts at zero.
    """

    def __init__(self, width: int, text_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(text_width, width), nn.Linear(text_width, width)
        self.out = _zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, text: EncodedText, guide: AttentionGuide | None = None) -> Tensor:
        q = self.query(self.norm(x.permute(0, 2, 3, 1))).unflatten(-1, (self.heads, -1))
        k, v = (m(text.tokens).unflatten(-1, (self.heads, -1)) for m in (self.key, self.value))
        logits = torch.einsum("bhwnd,btnd->bnhwt", q, k).float() / math.sqrt(q.shape[-1])
        logits = logits.masked_fill(~text.mask[:, None, None, None], -torch.inf)
        if guide is not None:
            logits = guide(logits)
        mixed = torch.einsum("bnhwt,btnd->bhwnd", logits.softmax(-1).to(v.dtype), v).flatten(3)
        out: Tensor = x + self.out(mixed).permute(0, 3, 1, 2)
        return out


class Stem(nn.Module):
    """The decoded latent, and words about it, as features at stride 4: the codec's synthesis without its last layer."""

    spread: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        deep, middle, shallow = config.stem_widths
        first, second, third = config.stem_blocks
        self.register_buffer("spread", torch.ones(config.latent_channels))
        self.enter = nn.Conv2d(config.latent_channels, deep, 3, padding=1)
        self.rate = RateBias(deep, config.rate_anchors)
        self.coarse = nn.Sequential(*(Residual(deep) for _ in range(first)))
        self.read = GuidedCrossAttention(deep, config.text_width, config.heads)
        self.up8 = nn.Conv2d(deep, 4 * middle, 1)
        self.middle = nn.Sequential(*(Residual(middle) for _ in range(second)))
        self.up4 = nn.Conv2d(middle, 4 * shallow, 1)
        self.fine = nn.Sequential(*(Residual(shallow) for _ in range(third)))

    def forward(
        self, latent: Tensor, rate: Tensor, text: EncodedText, guide: AttentionGuide | None
    ) -> Tensor:
        h = self.coarse(self.rate(self.enter(latent / self.spread[:, None, None]), rate))
        h = self.read(h, text, guide)
        h = self.middle(F.pixel_shuffle(self.up8(h), 2))
        out: Tensor = self.fine(F.pixel_shuffle(self.up4(h), 2))
        return out


class DiffusionNet(nn.Module):
    """A base picture, a partly restored one, the latent and a caption to the predicted original: ``forward``."""

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or DiffusionConfig()
        self.text = TextEncoder(c.word_width, c.text_width, c.text_layers, c.heads)
        self.vector = nn.Sequential(nn.Linear(2 * _WAVES, c.vector), nn.SiLU(), nn.Linear(c.vector, c.vector))
        self.from_text = nn.Linear(c.text_width, c.vector)
        self.films = _zeroed(nn.Linear(c.vector, c.blocks * 2 * c.width))
        self.stem = Stem(c)
        self.from_stem = _zeroed(nn.Conv2d(c.stem_widths[2], c.width, 3, padding=1))
        self.from_detail = _zeroed(nn.Conv2d(3 * PATCH**2, c.width, 3, padding=1))
        self.from_change = _zeroed(nn.Conv2d(3 * PATCH**2, c.width, 3, padding=1))
        self.trunk = RRDBTrunk(c.width, c.growth, c.blocks)
        self.share = _zeroed(nn.Conv2d(c.width, 1, 3, padding=1))

    def start_from_synthesis(self, synthesis: Synthesis) -> None:
        """Copy the codec's weights into the stem; widths and depths must be the same."""
        stem = self.stem
        stem.spread.copy_(synthesis.spread.flatten())
        copies: list[tuple[Any, Any]] = [
            (stem.enter, synthesis.stem),
            *(
                (getattr(stem, n), getattr(synthesis, n))
                for n in ("rate", "coarse", "up8", "middle", "up4", "fine")
            ),
        ]
        for to, source in copies:
            to.load_state_dict(source.state_dict())

    def encode(self, words: WordVectors) -> EncodedText:
        """Captions, once per picture: the steps share the result."""
        out: EncodedText = self.text(words)
        return out

    def forward(
        self,
        x: Tensor,
        base: Tensor,
        latent: Tensor,
        rate: Tensor,
        time: Tensor,
        text: EncodedText,
        guide: AttentionGuide | None = None,
    ) -> Tensor:
        """The predicted original ``[B, 3, H, W]``, not clamped.

        ``x`` at ``time [B]`` 0..1 (1: restored) and ``base``: ``[B, 3, H, W]`` 0..1 with sides multiples of ALIGN;
        ``latent``: ``[B, 128, H/16, W/16]``, gains undone; ``rate [B]``: 0..1.
        """
        vector = self.vector(torch.cat((_waves(time), _waves(rate)), 1)) + self.from_text(_mean(text))
        films = self.films(F.silu(vector)).unflatten(1, (self.config.blocks, 2, self.config.width))
        low = F.avg_pool2d(base, PATCH)
        detail = base - F.interpolate(low, scale_factor=PATCH, mode="nearest")
        joined = self.from_stem(self.stem(latent, rate, text, guide))
        joined = joined + self.from_detail(F.pixel_unshuffle(detail * _INPUT_SCALE, PATCH))
        joined = joined + self.from_change(F.pixel_unshuffle((x - base) * _INPUT_SCALE, PATCH))
        features = self.trunk.features(low, joined, films)
        picture = self.trunk.picture(features).float()
        share = F.interpolate(
            self.share(features).float(), scale_factor=PATCH, mode="bilinear", align_corners=False
        )
        return picture + share * (base - picture)


_WAVES = 16
_INPUT_SCALE = 4.0
"""Detail deviates by less than a quarter; inside, everything is around 1."""
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def _waves(value: Tensor) -> Tensor:
    """``[B]`` 0..1 to sines and cosines ``[B, _WAVES]``."""
    angles = value[:, None].float() * (2.0 ** torch.arange(_WAVES // 2, device=value.device) * math.pi / 4)
    return torch.cat((angles.sin(), angles.cos()), 1)


def _mean(text: EncodedText) -> Tensor:
    weight = text.mask[..., None].to(text.tokens)
    return (text.tokens * weight).sum(1) / weight.sum(1)


def _zeroed(layer: _Layer) -> _Layer:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
