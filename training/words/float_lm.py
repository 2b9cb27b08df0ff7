# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The exact language model's weights in bfloat16, differentiable: what prompts, projectors and adapters train against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picogram.text.lm.exact_lm import LMConfig

KV = Tensor
"""Keys and values of a prefix, ``[layers, 2, n, kv * d]`` or with a batch after the 2; keys after the rotation."""


class FloatLM(nn.Module):
    """Frozen Llama; gradients flow to inputs, prefixes and adapters only."""

    embedding: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, tensors: dict[str, Tensor], config: LMConfig | None = None) -> None:
        super().__init__()
        self.config = config or LMConfig()
        for name, value in tensors.items():
            scale = tensors.get(f"{name}.scale")
            if scale is not None:
                self.register_buffer(_safe(name), (value.double() * scale[:, None]).bfloat16())
            elif "gain" in name:
                self.register_buffer(_safe(name), value.float())
        for name in ("cos", "sin"):
            self.register_buffer(name, tensors[name].float() * 2.0**-30)

    def embed(self, ids: Tensor) -> Tensor:
        """``ids [...]`` as ``[..., width] float``."""
        return self.embedding[ids].float()

    def forward(
        self, x: Tensor, prefix: Tensor | None = None, adapters: "Adapters | None" = None, keep: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """``x [B, T, C]`` embeddings, right-padded, to normalised last states; ``keep`` also returns the KV of ``x``."""
        config, steps = self.config, x.shape[1]
        start = 0 if prefix is None else prefix.shape[-2]
        cos, sin = (t[start : start + steps].bfloat16()[:, None] for t in (self.cos, self.sin))
        mask = torch.ones(steps, start + steps, dtype=torch.bool).tril(start)
        kept, x = [], x.bfloat16()
        for i in range(config.layers):
            h = self._norm(x, f"{i}.attention_gain")
            qkv = self._adapted(f"{i}.qkv", h, adapters)
            q, k, v = qkv.split([config.width, config.kv_width, config.kv_width], -1)
            q = _rotate(q.unflatten(-1, (config.heads, -1)), cos, sin)
            k = _rotate(k.unflatten(-1, (config.kv_heads, -1)), cos, sin)
            v = v.unflatten(-1, (config.kv_heads, -1))
            if keep:
                kept.append(torch.stack((k.flatten(-2), v.flatten(-2))))
            if prefix is not None:
                pk, pv = prefix[i].bfloat16()
                k = torch.cat((_spread(pk, x.shape[0], config), k), 1)
                v = torch.cat((_spread(pv, x.shape[0], config), v), 1)
            mixed = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, enable_gqa=True
            )
            mixed = mixed.transpose(1, 2).flatten(-2)
            x = x + self._adapted(f"{i}.out", mixed, adapters)
            h = self._norm(x, f"{i}.mlp_gain")
            gate, up = F.linear(h, self._weight(f"{i}.gate_up")).chunk(2, -1)
            x = x + self._adapted(f"{i}.down", F.silu(gate) * up, adapters)
        x = self._norm(x, "final_gain")
        return (x, torch.stack(kept)) if keep else x

    def _adapted(self, name: str, x: Tensor, adapters: "Adapters | None") -> Tensor:
        out = F.linear(x, self._weight(name))
        return out if adapters is None else out + adapters(name, x)

    def losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Nats of ``targets [N]`` given last states ``[N, C]``."""
        return F.cross_entropy(F.linear(states, self.embedding).float(), targets, reduction="none")

    def _weight(self, name: str) -> Tensor:
        found: Tensor = getattr(self, _safe(name))
        return found

    def _norm(self, x: Tensor, gain: str) -> Tensor:
        x = x.float()
        return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self._weight(gain)).bfloat16()


class Adapters(nn.Module):
    """Low-rank updates (Hu et al., LoRA, 2021) of the attention and MLP outputs of every layer."""

    def __init__(self, config: LMConfig, rank: int, places: tuple[str, ...] = ("qkv", "out", "down")) -> None:
        super().__init__()
        sizes = {
            "qkv": (config.width, config.width + 2 * config.kv_width),
            "out": (config.width, config.width),
            "down": (config.hidden, config.width),
        }
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for i in range(config.layers):
            for place in places:
                inputs, outputs = sizes[place]
                name = _safe(f"{i}.{place}")
                self.down[name] = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
                self.up[name] = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, name: str, x: Tensor) -> Tensor:
        name = _safe(name)
        if name not in self.down:
            return torch.zeros((), dtype=x.dtype)
        return F.linear(F.linear(x, self.down[name].bfloat16()), self.up[name].bfloat16())


def _safe(name: str) -> str:
    return "w_" + name.replace(".", "_") if name[0].isdigit() else name


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def _spread(part: Tensor, batch: int, config: LMConfig) -> Tensor:
    part = part.unflatten(-1, (config.kv_heads, -1))
    return part.expand(batch, *part.shape[-3:]) if part.dim() == 3 else part
