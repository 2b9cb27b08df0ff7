# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The network of the embedded diffusion model: a U-Net that predicts the original from a partly restored picture.

    x_t, base [B, 3, H, W] ── unshuffle 4 ── stride 4 ── stride 8 ── stride 16 ── stride 32: attention ──┐
                                                │           │           │                                │
    decoded latent [B, 128, H/16, W/16] ────────┼───────────┼── + ── stride 16 (cross-attention) ── + ───┘
                                                │           └── stride 8 ──┘
    clean [B, 3, H, W] ── shuffle 4 ────────────┴── stride 4 ──┘
    time, rate, caption ── a vector ── a scale and a shift in every block

The way up has the shape of the codec's synthesis network and starts from its weights (``start_from_synthesis``): it
knows pictures from the first step on, which a network from nothing would need hours for. All that comes from
the left joins through layers that start at zero, and the output does: an untrained network returns the base picture.
No normalisation over positions, so tiles agree but for the attention at stride 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picogram.diffusion.denoiser import Guide
from picogram.diffusion.text import Encoded, TextEncoder, Words
from picogram.latent.transforms import RateBias, Synthesis

PATCH = 4
"""Side of the squares that become channels at the start."""
SQUARE = 16
ALIGN = 32
"""Picture sides must be multiples of this."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Widths and depths; the defaults are the shipped model."""

    widths: tuple[int, int, int, int] = (
        64,
        128,
        192,
        256,
    )  # at strides 4, 8, 16, 32; the first three as the codec's
    down: tuple[int, int, int] = (1, 2, 1)
    middle: int = 2
    up: tuple[int, int, int] = (5, 5, 4)  # the codec's (2, 4, 4) first
    rate_anchors: int = 8
    latent_channels: int = 128
    vector: int = 128
    heads: int = 4
    word_width: int = 576
    text_width: int = 192
    text_layers: int = 2


class Block(nn.Module):
    """``x + conv(act(film(conv(act(x)))))``; starts as the identity."""

    def __init__(self, width: int, vector: int) -> None:
        super().__init__()
        self.first = _even(nn.Conv2d(width, width, 3, padding=1), math.sqrt(2))
        self.film = _zeroed(nn.Linear(vector, 2 * width))
        self.last = _zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        h = self.first(F.leaky_relu(x, 0.1))
        h = torch.addcmul(h + shift, h, scale)
        out: Tensor = x + self.last(F.leaky_relu(h, 0.1))
        return out


class Stage(nn.Module):
    """Blocks at one stride."""

    def __init__(self, width: int, depth: int, vector: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, vector) for _ in range(depth))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, vector)
        return x


class SelfAttention(nn.Module):
    """Positions look at one another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), _zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(rows)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out(mixed).transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class CrossAttention(nn.Module):
    """Positions look at the caption. Logits are explicit, so that a ``Guide`` can see and bend them."""

    def __init__(self, width: int, text_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(text_width, width), nn.Linear(text_width, width)
        self.out = _zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, text: Encoded, guide: Guide | None = None) -> Tensor:
        q = self.query(self.norm(x.permute(0, 2, 3, 1))).unflatten(-1, (self.heads, -1))
        k, v = (m(text.tokens).unflatten(-1, (self.heads, -1)) for m in (self.key, self.value))
        logits = torch.einsum("bhwnd,btnd->bnhwt", q, k).float() / math.sqrt(q.shape[-1])
        logits = logits.masked_fill(~text.mask[:, None, None, None], -torch.inf)
        if guide is not None:
            logits = guide(logits)
        mixed = torch.einsum("bnhwt,btnd->bhwnd", logits.softmax(-1).to(v.dtype), v).flatten(3)
        out: Tensor = x + self.out(mixed).permute(0, 3, 1, 2)
        return out


class DiffusionNet(nn.Module):
    """The network; see the module's text."""

    spread: Tensor

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or DiffusionConfig()
        w4, w8, w16, w32 = c.widths
        self.register_buffer("spread", torch.ones(c.latent_channels))
        self.text = TextEncoder(c.word_width, c.text_width, c.text_layers, c.heads)
        self.vector = nn.Sequential(nn.Linear(2 * _WAVES, c.vector), nn.SiLU(), nn.Linear(c.vector, c.vector))
        self.from_text = _zeroed(nn.Linear(c.text_width, c.vector))
        self.stem = nn.Conv2d(6 * PATCH**2, w4, 3, padding=1)
        self.down4, self.down8, self.down16 = (
            Stage(w, d, c.vector) for w, d in zip(c.widths[:3], c.down, strict=True)
        )
        self.to8, self.to16, self.to32 = (
            nn.Conv2d(4 * a, b, 1) for a, b in ((w4, w8), (w8, w16), (w16, w32))
        )
        for conv in (self.stem, self.to8, self.to16, self.to32):
            _even(conv, 1.0)
        self.middle = nn.ModuleList(Stage(w32, 1, c.vector) for _ in range(c.middle))
        self.attend = nn.ModuleList(SelfAttention(w32, c.heads) for _ in range(c.middle))
        self.read32 = CrossAttention(w32, c.text_width, c.heads)
        self.read16 = CrossAttention(w16, c.text_width, c.heads)
        self.join32 = _zeroed(nn.Conv2d(w32, 4 * w16, 1))
        self.join16, self.join8, self.join4 = (_zeroed(nn.Conv2d(w, w, 1)) for w in (w16, w8, w4))
        self.from_latent = nn.Conv2d(c.latent_channels, w16, 3, padding=1)
        self.from_rate = RateBias(w16, c.rate_anchors)
        self.from16, self.from8 = (nn.Conv2d(a, 4 * b, 1) for a, b in ((w16, w8), (w8, w4)))
        self.up16, self.up8, self.up4 = (
            Stage(w, d, c.vector) for w, d in zip(c.widths[2::-1], c.up[::-1], strict=True)
        )
        self.head = _zeroed(nn.Conv2d(w4, 3 * PATCH**2, 3, padding=1))

    def start_from_synthesis(self, synthesis: Synthesis) -> None:
        """Copy the codec's weights into the way up; widths must be the same, depths at least the codec's."""
        self.spread.copy_(synthesis.spread.flatten())
        copies: list[tuple[Any, Any]] = [
            (self.from_latent, synthesis.stem),
            (self.from_rate, synthesis.rate),
            (self.from16, synthesis.up8),
            (self.from8, synthesis.up4),
        ]
        pairs = ((self.up16, synthesis.coarse), (self.up8, synthesis.middle), (self.up4, synthesis.fine))
        for mine, theirs in pairs:
            for own, block in zip(mine.blocks, theirs, strict=False):
                copies += [(own.first, block.first), (own.last, block.last)]
        for to, source in copies:
            to.load_state_dict(source.state_dict())

    def encode(self, words: Words) -> Encoded:
        """Captions, once per picture: the steps share the result."""
        out: Encoded = self.text(words)
        return out

    def forward(
        self,
        x: Tensor,
        base: Tensor,
        latent: Tensor,
        rate: Tensor,
        time: Tensor,
        text: Encoded,
        guide: Guide | None = None,
    ) -> Tensor:
        """The predicted original ``[B, 3, H, W]``, not clamped.

        ``x`` at ``time [B]`` 0..1 (1: restored) and ``base``: ``[B, 3, H, W]`` 0..1 with sides multiples of ALIGN;
        ``latent``: ``[B, 128, H/16, W/16]``, gains undone; ``rate [B]``: 0..1.
        """
        vector = self.vector(torch.cat((_waves(time), _waves(rate)), 1)) + self.from_text(_mean(text))
        vector = F.silu(vector)
        both = torch.cat((x - 0.5, base - 0.5), 1) * _INPUT_SCALE
        h4 = self.down4(self.stem(F.pixel_unshuffle(both, PATCH)), vector)
        h8 = self.down8(self.to8(F.pixel_unshuffle(h4, 2)), vector)
        h16 = self.down16(self.to16(F.pixel_unshuffle(h8, 2)), vector)
        h32 = self.to32(F.pixel_unshuffle(h16, 2))
        for attend, stage in zip(self.attend, self.middle, strict=True):
            h32 = stage(attend(h32), vector)
        h32 = self.read32(h32, text, guide)
        up = self.from_rate(self.from_latent(latent / self.spread[:, None, None]), rate)
        up = up + self.join16(h16) + F.pixel_shuffle(self.join32(h32), 2)
        up = self.up16(self.read16(up, text, guide), vector)
        up = self.up8(F.pixel_shuffle(self.from16(up), 2) + self.join8(h8), vector)
        up = self.up4(F.pixel_shuffle(self.from8(up), 2) + self.join4(h4), vector)
        # corrects the base at any time: a share of x would carry its noise into the picture until that is unlearnt
        return base + high_pass(F.pixel_shuffle(self.head(up), PATCH).float())


def high_pass(x: Tensor) -> Tensor:
    """``x`` less its means over squares of SQUARE pixels, smoothly joined: brightness and colour stay the base picture's.

    Free to change them, the network learns that more contrast fools a discriminator, and nothing else.
    """
    means = F.avg_pool2d(x, SQUARE)
    return x - F.interpolate(means, scale_factor=SQUARE, mode="bilinear", align_corners=False)


_WAVES = 16
_INPUT_SCALE = 4.0
"""Pictures deviate by about a quarter; inside, everything is around 1."""
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def _waves(value: Tensor) -> Tensor:
    """``[B]`` 0..1 to sines and cosines ``[B, _WAVES]``."""
    angles = value[:, None].float() * (2.0 ** torch.arange(_WAVES // 2, device=value.device) * math.pi / 4)
    return torch.cat((angles.sin(), angles.cos()), 1)


def _mean(text: Encoded) -> Tensor:
    weight = text.mask[..., None].to(text.tokens)
    return (text.tokens * weight).sum(1) / weight.sum(1)


def _even(conv: nn.Conv2d, gain: float) -> nn.Conv2d:
    """Started so that its output varies as much as its input, times ``gain``: without normalisation the deep strides
    would otherwise hear next to nothing."""
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    return conv


def _zeroed(layer: _Layer) -> _Layer:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
