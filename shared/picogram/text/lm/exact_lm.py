# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A Llama forward pass whose logits are the same integers on every machine, in every batch (docs/text.md, "Arithmetic").

    ids or integer embeddings ── 30 x [RMSNorm, attention, RMSNorm, SwiGLU] ── RMSNorm ── logits on a grid of 2**-8

Three kinds of steps only: sums of integers that cannot leave the exact range of their type; single IEEE operations on
float64 elements (add, multiply, divide, square root, round), which are correctly rounded everywhere; look-ups in integer
tables. Rows of a batch never meet in an operation that rounds, so batch size, padding and prefill against stepping
make no difference. After Touvron et al., "LLaMA" (2023), section 2.2, for the architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from picogram.exact.split_linear import SplitKernel, SplitLinear, best_kernel, power_of_two
from picogram.exact.split_linear import binary_exponent as _binary_exponent
from picogram.text.lm.lm_tables import EXP_SIZE, EXP_STEP_BITS, ONE_BITS, SIGMOID_SPAN

RESIDUAL_BITS = 16
"""The residual stream lies on a grid of 2**-16."""
NORM_BITS = 20
KEY_BITS = 10
"""Queries and keys lie on a grid of 2**-10, within +-2**17 of it; values on 2**-12, within +-2**19."""
VALUE_BITS = 12
LOGIT_BITS = 8
"""Logits lie on a grid of 2**-8."""
MAX_POSITIONS = 1024
_KEY_LIMIT = float(1 << 17)
_VALUE_LIMIT = float(1 << 19)
_RESIDUAL_LIMIT = float(1 << 40)
_WEIGHT_BITS = 20
_EPSILON = 1e-5
_LOGIT_ROWS = 64


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a Llama model; the defaults are SmolLM2-135M."""

    layers: int = 30
    width: int = 576
    heads: int = 9
    kv_heads: int = 3
    head_width: int = 64
    hidden: int = 1536
    vocabulary: int = 49152
    rope_base: int = 100_000

    @property
    def kv_width(self) -> int:
        """Numbers in a key or a value of one position, all heads together."""
        return self.kv_heads * self.head_width


class Cache:
    """Keys and values of a batch of rows, each with its own length: integers in float64, ``[B, capacity, kv, d]``."""

    def __init__(self, config: LMConfig, batch: int, capacity: int) -> None:
        shape = (config.layers, 2, batch, min(capacity, MAX_POSITIONS), config.kv_heads, config.head_width)
        self.store = torch.zeros(shape, dtype=torch.float64)
        self.lengths = torch.zeros(batch, dtype=torch.int64)

    def reserve(self, longest: int) -> None:
        """Make room for rows of ``longest`` positions; ValueError beyond MAX_POSITIONS."""
        have = self.store.shape[3]
        if longest > MAX_POSITIONS:
            raise ValueError(f"a row needs {longest} positions, the model has {MAX_POSITIONS}")
        if longest > have:
            new = min(MAX_POSITIONS, max(longest, 2 * have))
            grown = self.store.new_zeros((*self.store.shape[:3], new, *self.store.shape[4:]))
            grown[:, :, :, :have] = self.store
            self.store = grown

    def preset(self, row: int, prefix: Tensor) -> None:
        """Start ``row`` with ``prefix [layers, 2, n, kv * d]`` integers: a soft prompt."""
        count = prefix.shape[2]
        self.reserve(count)
        self.store[:, :, row, :count] = prefix.reshape(*prefix.shape[:3], *self.store.shape[4:]).double()
        self.lengths[row] = count

    def keep(self, rows: Tensor) -> None:
        """Drop all rows of the batch but ``rows``, numbers or a mask."""
        self.store, self.lengths = self.store[:, :, rows], self.lengths[rows]


Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Where keys and values live: ``(layer, queries [N, heads, d], keys [N, kv, d], values [N, kv, d])`` of N positions, all
integers, to the mixed values ``[N, width]``. It stores the new keys and values and calls ``ExactLM.mix``."""


@dataclass(frozen=True)
class _Layer:
    attention_gain: Tensor
    qkv: SplitLinear
    out: SplitLinear
    mlp_gain: Tensor
    gate_up: SplitLinear
    down: SplitLinear


class ExactLM:
    """The model, ready to run; ``forward`` changes only the cache it is given."""

    def __init__(
        self, tensors: dict[str, Tensor], config: LMConfig | None = None, kernel: SplitKernel | None = None
    ) -> None:
        """``tensors``: what ``convert.convert`` makes; ``kernel``: None picks the fastest that proves exact here."""
        self.config = config or LMConfig()
        self.kernel: SplitKernel = kernel or best_kernel()

        def linear(name: str) -> SplitLinear:
            return SplitLinear(tensors[name], tensors[f"{name}.scale"], self.kernel)

        self.embedding = tensors["embedding"]
        self.embedding_scale = tensors["embedding.scale"].double()
        self.layers = [
            _Layer(
                tensors[f"{i}.attention_gain"].double(),
                linear(f"{i}.qkv"),
                linear(f"{i}.out"),
                tensors[f"{i}.mlp_gain"].double(),
                linear(f"{i}.gate_up"),
                linear(f"{i}.down"),
            )
            for i in range(self.config.layers)
        ]
        self.final_gain = tensors["final_gain"].double()
        self.head = SplitLinear(tensors["embedding"], tensors["embedding.scale"], self.kernel)
        self.exp = tensors["exp"].double()
        self.sigmoid = tensors["sigmoid"].double() * 2.0**-ONE_BITS
        self.cos = tensors["cos"].double() * 2.0**-ONE_BITS
        self.sin = tensors["sin"].double() * 2.0**-ONE_BITS

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[...]`` to integers of the residual grid ``[..., width] float64``."""
        rows = self.embedding[ids].double() * self.embedding_scale[ids][..., None]
        return torch.round(rows * 2.0**RESIDUAL_BITS)

    @torch.inference_mode()
    def forward(self, x: Tensor, cache: Cache, counts: Tensor | None = None) -> Tensor:
        """Append ``x [B, T, width]`` (as ``embed`` makes it) to the rows of ``cache``; last states ``[B, T, width]``.

        ``counts [B]``: how many of the T positions of each row are real; the rest is padding at the end, whose output
        means nothing and which leaves no trace.
        """
        batch, steps, width = x.shape
        counts = torch.full((batch,), steps) if counts is None else counts
        cache.reserve(int(cache.lengths.max()) + steps)
        positions = cache.lengths[:, None] + torch.arange(steps)
        span = int(positions.max()) + 1
        blocked = torch.arange(span) > positions[:, :, None]  # [B, T, span]
        rows = torch.arange(batch)[:, None]

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.store[index]
            keys[rows, positions] = k.reshape(batch, steps, *k.shape[1:])
            values[rows, positions] = v.reshape(batch, steps, *v.shape[1:])
            return self.mix(q.reshape(batch, steps, *q.shape[1:]), keys[:, :span], values[:, :span], blocked)

        x = self.blocks(x.reshape(batch * steps, width), positions.flatten(), attend)
        cache.lengths = cache.lengths + counts
        return x.reshape(batch, steps, width)

    def blocks(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """All layers on residual integers ``x [N, width]`` at ``positions [N]``, with any store of keys and values."""
        c = self.config
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        for index, layer in enumerate(self.layers):
            projected = layer.qkv(rms_norm(x, layer.attention_gain))
            q, k, v = projected.reshape(len(x), -1, c.head_width).split([c.heads, c.kv_heads, c.kv_heads], 1)
            v = torch.round(v * float(1 << VALUE_BITS)).clamp_(-_VALUE_LIMIT, _VALUE_LIMIT)
            x = add(x, layer.out(attend(index, _rotate(q, cos, sin), _rotate(k, cos, sin), v)))
            gate, up = layer.gate_up(rms_norm(x, layer.mlp_gain)).chunk(2, 1)
            x = add(x, layer.down(self._silu(gate) * up))
        return x

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Integer logits ``[N, vocabulary] float64``, in units of 2**-8, of hidden states ``[N, width]``."""
        pieces = []
        for part in hidden.split(_LOGIT_ROWS):
            pieces.append(torch.round(self.head(rms_norm(part, self.final_gain)) * float(1 << LOGIT_BITS)))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _silu(self, gate: Tensor) -> Tensor:
        place = torch.round(gate * float(1 << EXP_STEP_BITS)).clamp_(-SIGMOID_SPAN, SIGMOID_SPAN)
        return gate * self.sigmoid[place.to(torch.int64) + SIGMOID_SPAN]

    def mix(self, q: Tensor, keys: Tensor, values: Tensor, blocked: Tensor) -> Tensor:
        """Attention of ``q [B, T, heads, d]`` over ``keys, values [B, span, kv, d]``: reals ``[B * T, width]``.

        ``blocked [B, T, span]``: positions that a query does not see. They leave no trace, however many there are.
        """
        c = self.config
        batch, steps, span = blocked.shape
        group = c.heads // c.kv_heads
        q = q.reshape(batch, steps, c.kv_heads, group, c.head_width).permute(0, 2, 3, 1, 4)
        scores = q.reshape(batch, c.kv_heads, group * steps, c.head_width) @ keys.permute(0, 2, 3, 1)
        weights = self._softmax(scores.reshape(batch, c.kv_heads, group, steps, span), blocked)
        mixed = weights.reshape(batch, c.kv_heads, group * steps, span) @ values.transpose(1, 2)
        mixed = mixed.reshape(batch, c.kv_heads, group, steps, c.head_width).permute(0, 3, 1, 2, 4)
        return mixed.reshape(batch * steps, c.width) * 2.0 ** -(_WEIGHT_BITS + VALUE_BITS)

    def _softmax(self, scores: Tensor, blocked: Tensor) -> Tensor:
        """Integer weights in units of 2**-20; ``scores`` are integers in units of 2**-20 of an unscaled product."""
        scores = scores.masked_fill(blocked[:, None, None], -(2.0**52))
        distance = (scores.amax(-1, keepdim=True) - scores) * 2.0 ** (EXP_STEP_BITS - 2 * KEY_BITS - 3)
        place = torch.round(distance).clamp_(max=EXP_SIZE - 1).to(torch.int64)
        mass = self.exp[place]
        share = float(1 << _WEIGHT_BITS) / mass.sum(-1, keepdim=True)
        return torch.round(mass * share)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``[N, heads, d]``, halves paired as in GPT-NeoX, and rounding to the key grid."""
    a, b = x.chunk(2, 2)
    turned = torch.cat((a * cos - b * sin, b * cos + a * sin), 2)
    return torch.round(turned * float(1 << KEY_BITS)).clamp_(-_KEY_LIMIT, _KEY_LIMIT)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMSNorm (Zhang and Sennrich, 2019) of residual integers ``[N, C]``: real numbers, float64.

    The sum of squares is one of 20-bit integers, so exact in any order.
    """
    exponent = (_binary_exponent(x.abs().amax(1, keepdim=True)) - (NORM_BITS - 1)).clamp_(min=0)
    integers = torch.round(x * power_of_two(-exponent))
    unit = power_of_two(exponent - RESIDUAL_BITS)
    mean = (integers * integers).sum(1, keepdim=True) / float(x.shape[1])
    root = torch.sqrt(mean * (unit * unit) + _EPSILON)
    return integers * (unit / root) * gain


def add(x: Tensor, y: Tensor) -> Tensor:
    """Residual integers plus a real update, rounded to the residual grid."""
    return (x + torch.round(y * float(1 << RESIDUAL_BITS))).clamp_(-_RESIDUAL_LIMIT, _RESIDUAL_LIMIT)
