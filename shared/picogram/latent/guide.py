# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The text adapter of the analysis transform (after TACO, Lee et al., ICML 2024, section 3): words shape what is coded,
and are not sent.

    x ── stride 4 ── image <- text ── + ── x' ── analysis, stride 8 ── h ── image <- text' ── + ── h' ── ...
                          text ── text <- image (h, an 8x8 summary of all of it) ── text'

Every step is a residual whose last layer starts at zero, and nothing else touches the image: a fresh adapter leaves the
analysis as it is, bit for bit. Text is hidden states of the embedded language model; a learned first token takes the
place of words where there are none, so that attention always has something to look at. Padding is masked out
everywhere. Queries see one position each and the summary has one size, so that large pictures can go through in tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE = 4
"""Stride of the first injection; the second is at that of the analysis' own first stage, 8."""


@dataclass(frozen=True)
class Guide:
    """Captions for an encoder: ``states [B, T, W]`` of their tokens, ``mask [B, T]`` True where there is one.

    A row without any token stands for no caption.
    """

    states: Tensor
    mask: Tensor

    @classmethod
    def none(cls, batch: int, width: int, device: torch.device | None = None) -> Guide:
        """No captions for ``batch`` pictures."""
        states = torch.zeros(batch, 0, width, device=device)
        return cls(states, torch.zeros(batch, 0, dtype=torch.bool, device=device))

    def to(self, device: torch.device) -> Guide:
        """The same captions on a device."""
        return Guide(self.states.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Tokens:
    """``values [B, 1 + T, D]``, the learned first one included, and ``mask [B, 1 + T]`` of what is real."""

    values: Tensor
    mask: Tensor


@dataclass(frozen=True)
class AdapterConfig:
    """Widths; the defaults are the shipped model, half a million parameters."""

    text_width: int = 576
    image_width: int = 128  # of the analysis at stride 8
    fine_width: int = 64
    width: int = 128
    heads: int = 4
    summary: int = 8

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> AdapterConfig | None:
        """Of a latent model's weights, packed or not; None if it has no adapter."""
        entry = tensors.get("adapter.enter.weight")
        return None if entry is None else cls(text_width=entry.shape[1])


class CrossAttention(nn.Module):
    """What ``x [B, N, C]`` finds in ``context [B, M, D]``, as ``[B, N, out]``; the last layer starts at zero.

    Both sides are layer-normalised before they are compared; what is returned is to be added to ``x`` as it is.
    """

    def __init__(self, image: int, context: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.context_norm = nn.LayerNorm(image), nn.LayerNorm(context)
        self.query = nn.Linear(image, width)
        self.key_value = nn.Linear(context, 2 * width)
        self.mix = nn.Linear(width + image, 2 * width)
        self.out = nn.Linear(2 * width, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask [B, M]``: True for what may be looked at; None: all."""
        normed = self.query_norm(x)
        key, value = (self._split(v) for v in self.key_value(self.context_norm(context)).chunk(2, -1))
        allowed = None if mask is None else mask[:, None, None, :]
        found = F.scaled_dot_product_attention(self._split(self.query(normed)), key, value, allowed)
        found = found.transpose(1, 2).flatten(2)
        out: Tensor = self.out(F.gelu(self.mix(torch.cat([found, normed.to(found.dtype)], -1))))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` to ``[B, heads, N, D / heads]``."""
        batch, count, width = x.shape
        return x.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


class TextAdapter(nn.Module):
    """Words shape the features of the analysis, and the features the words; every step is a residual that starts at zero.

    ``offset`` and ``factor`` bring the channels of the language model's states to one size."""

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or AdapterConfig()
        self.register_buffer("offset", torch.zeros(c.text_width))
        self.register_buffer("factor", torch.ones(c.text_width))
        self.enter = nn.Linear(c.text_width, c.width)
        self.nothing = nn.Parameter(torch.randn(c.width) * 0.02)
        self.look = nn.Conv2d(3 * FINE**2, c.fine_width, 3, padding=1)
        self.fine = CrossAttention(c.fine_width, c.width, c.width, c.heads, 3 * FINE**2)
        self.listen = CrossAttention(c.width, c.image_width, c.width, c.heads, c.width)
        self.coarse = CrossAttention(c.image_width, c.width, c.width, c.heads, c.image_width)

    offset: Tensor
    factor: Tensor

    def read(self, guide: Guide) -> Tokens:
        """Captions ``[B, T, W]`` as the adapter's tokens ``[B, 1 + T, D]``, the learned one first."""
        words = self.enter((guide.states - self.offset) * self.factor)
        first = self.nothing.expand(len(words), 1, -1).to(words.dtype)
        return Tokens(torch.cat([first, words], 1), F.pad(guide.mask, (1, 0), value=True))

    def at_pixels(self, x: Tensor, tokens: Tokens) -> Tensor:
        """``x [B, 3, H, W]`` around 0, sides multiples of 4, with the first residual added."""
        seen = F.leaky_relu(self.look(F.pixel_unshuffle(x, FINE)), 0.1)
        change = _as_map(self.fine(_as_rows(seen), tokens.values, tokens.mask), seen)
        out: Tensor = x + F.pixel_shuffle(change, FINE)
        return out

    def summary(self, features: Tensor) -> Tensor:
        """``features [B, C, h, w]`` of a whole picture at stride 8, as ``[B, n, C]`` whatever its size."""
        return _as_rows(F.adaptive_avg_pool2d(features, self.config.summary))

    def heard(self, tokens: Tokens, summary: Tensor) -> Tokens:
        """The tokens ``[B, 1 + T, D]`` with what they find in ``summary [B, n, C]`` of the picture added."""
        return Tokens(tokens.values + self.listen(tokens.values, summary), tokens.mask)

    def at_features(self, features: Tensor, tokens: Tokens) -> Tensor:
        """``features [B, C, h, w]`` at stride 8, all or a part of a picture's, with the last residual added."""
        return features + _as_map(self.coarse(_as_rows(features), tokens.values, tokens.mask), features)


def _as_rows(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` to ``[B, h * w, C]``."""
    return x.flatten(2).transpose(1, 2)


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """``[B, h * w, C]`` to ``[B, C, h, w]``."""
    return rows.transpose(1, 2).reshape(rows.shape[0], -1, *like.shape[2:])
