# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captions as the diffusion model sees them: the language model's frozen embeddings, then a small encoder of its own.

    ids [B, T] ── WordTable ── words [B, T, 576] ── linear, positions, transformer layers ── tokens [B, 1 + T, C]

Words that no training caption has lie near others in the frozen table, so the encoder knows what to do with them. The
first token is learnt and always there: an empty caption is that token alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WORDS = 96
"""Tokens of a caption that are used; the rest is cut."""


@dataclass(frozen=True)
class WordVectors:
    """A batch of captions: ``vectors [B, T, width]`` and ``mask [B, T]``, True where there is a token."""

    vectors: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> WordVectors:
        """The same captions on a device."""
        return WordVectors(self.vectors.to(device), self.mask.to(device))


@dataclass(frozen=True)
class EncodedText:
    """What attention reads: ``tokens [B, 1 + T, C]``, ``mask [B, 1 + T]``; index 0 is the learnt token."""

    tokens: Tensor
    mask: Tensor

    @property
    def words(self) -> Tensor:
        """``mask`` without the learnt token."""
        return torch.cat((torch.zeros_like(self.mask[:, :1]), self.mask[:, 1:]), 1)


class WordTable:
    """Token ids to unit-variance vectors, from the tensors of the shipped language model."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """``tensors``: with ``embedding [V, width] int8`` and ``embedding.scale [V]``."""
        vectors = tensors["embedding"].float() * tensors["embedding.scale"].float().view(-1, 1)
        self.vectors = F.layer_norm(vectors, vectors.shape[1:]).half()

    def __call__(self, captions: Sequence[Sequence[int]]) -> WordVectors:
        """Captions as token ids, each cut at MAX_WORDS; empty ones are allowed."""
        cut = [list(ids)[:MAX_WORDS] for ids in captions]
        longest = max((len(ids) for ids in cut), default=0)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in cut], dtype=torch.long)
        lengths = torch.tensor([len(row) for row in cut])
        return self.look_up(ids.view(len(cut), longest), lengths)

    def look_up(self, ids: Tensor, lengths: Tensor) -> WordVectors:
        """``ids [B, T]`` right-padded, ``lengths [B]``."""
        mask = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        return WordVectors(self.vectors[ids].float() * mask[..., None], mask)


def no_words(batch: int, width: int) -> WordVectors:
    """``batch`` captions of no words: vectors ``[batch, 0, width]``."""
    return WordVectors(torch.zeros(batch, 0, width), torch.zeros(batch, 0, dtype=torch.bool))


class TextEncoder(nn.Module):
    """``WordVectors [B, T, word_width]`` to ``EncodedText [B, 1 + T, width]``."""

    def __init__(self, word_width: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        self.enter = nn.Linear(word_width, width)
        self.layers = nn.ModuleList(TextLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, words: WordVectors) -> EncodedText:
        batch, count = words.mask.shape
        x = self.enter(words.vectors) + _positions(count, self.width, words.vectors.device).to(words.vectors)
        x = torch.cat((self.first.expand(batch, 1, -1).to(x), x), 1)
        mask = torch.cat((words.mask.new_ones(batch, 1), words.mask), 1)
        for layer in self.layers:
            x = layer(x, mask)
        return EncodedText(self.norm(x), mask)


class TextLayer(nn.Module):
    """A transformer layer, normalised before each part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.between(x))))
        return out


def _positions(count: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the position, ``[count, width]``: any length, trained or not."""
    pace = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(1e4) / width))
    angles = torch.arange(count, device=device)[:, None] * pace
    return torch.cat((angles.sin(), angles.cos()), 1)
