# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The exact language model of ``picogram.text.lm.exact_lm`` as a model of vLLM's, with the same integer logits.

    token ids, virtual ids ── ExactLM.blocks over vLLM's paged cache ── integer logits, float32

vLLM schedules, batches and allocates; the arithmetic is the library's own. Keys and values are integers below 2**20, so
the engine's float32 cache holds them exactly. A *virtual token* stands for one position of a soft prompt: its keys and
values in every layer come from a table, and nothing is computed for it. Its id is beyond the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention

from picogram.text.lm.exact_lm import MAX_POSITIONS, ExactLM, LMConfig

ARCHITECTURE = "PicogramExactLM"
MAX_MODEL_LENGTH = MAX_POSITIONS + 1
"""In vLLM's count, which includes the last token; that one is never fed."""
_KEY_LIMIT, _VALUE_LIMIT = 1 << 17, 1 << 19
_PROMPT = "prompt."


def register() -> None:
    """Make vLLM know the model; may be called any number of times, also as a vLLM plug-in."""
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, PicogramExactLM)


def write_model_directory(
    directory: Path, weights: Path, prompts: Mapping[str, Tensor], config: LMConfig | None = None
) -> dict[str, int]:
    """Make a directory that vLLM loads as a model; the first virtual id of each prompt.

    ``weights``: what ``picogram.text.lm.convert`` made, linked and not copied. ``prompts``: integers
    ``[layers, 2, n, kv * d]`` by name; ValueError if one has another shape or leaves the range of keys and values.
    """
    c = config or LMConfig()
    directory.mkdir(parents=True, exist_ok=True)
    first, firsts = c.vocabulary, {}
    for name, table in prompts.items():
        _check_prompt(name, table, c)
        firsts[name] = first
        first += table.shape[2]
    link = directory / "model.safetensors"
    link.unlink(missing_ok=True)
    link.symlink_to(weights.resolve())
    if prompts:
        tables = {f"{_PROMPT}{name}": t.to(torch.int32).contiguous() for name, t in prompts.items()}
        save_file(tables, directory / "prompts.safetensors")
    fields = {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "torch_dtype": "float32",
        "num_hidden_layers": c.layers,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "intermediate_size": c.hidden,
        "vocab_size": first,
        "max_position_embeddings": MAX_MODEL_LENGTH,
        "rope_theta": c.rope_base,
        "tie_word_embeddings": True,
        "picogram_vocabulary": c.vocabulary,
        "picogram_prompts": list(prompts),
    }
    (directory / "config.json").write_text(json.dumps(fields, indent=1))
    return firsts


def _check_prompt(name: str, table: Tensor, config: LMConfig) -> None:
    if table.ndim != 4 or (*table.shape[:2], table.shape[3]) != (config.layers, 2, config.kv_width):
        raise ValueError(f"prompt {name!r} has the shape {tuple(table.shape)}")
    if table.shape[2] == 0:
        return
    keys, values = int(table[:, 0].abs().max()), int(table[:, 1].abs().max())
    if keys > _KEY_LIMIT or values > _VALUE_LIMIT:
        raise ValueError(f"prompt {name!r} leaves the range of keys or values")


@dataclass(frozen=True)
class _Rows:
    """Requests of one step that have equally many new tokens to compute."""

    tokens: Tensor
    """Places of their tokens among those of the step, ``[R * T]``."""
    pages: Tensor
    """``[R, pages]``."""
    blocked: Tensor
    """``[R, T, span]``."""
    stale: Tensor
    """``[R, span, 1, 1]``: places beyond the end of a request."""


class PagedAttention:
    """Attention of one step over vLLM's paged cache: an ``Attend`` for ``ExactLM.blocks`` on the tokens ``real [n]``."""

    def __init__(
        self, lm: ExactLM, layers: Iterable[Any], metadata: Any, real: Tensor, positions: Tensor
    ) -> None:
        """``metadata``: vLLM's for the step; ``real [N]``: what is to be computed; ``positions [N]``."""
        self.lm = lm
        self.caches: list[Tensor] = [layer.kv_cache for layer in layers]  # each [pages, kv, page, 2 * d]
        self.page = self.caches[0].shape[2]
        self.slots = metadata.slot_mapping.long()
        self.own_slots = self.slots[real]
        before = torch.nn.functional.pad(real.long().cumsum(0), (1, 0))
        edges = before[metadata.query_start_loc.long()]
        firsts, counts = edges[:-1], edges.diff()
        self.rows = []
        for count in torch.unique(counts[counts > 0]).tolist():
            chosen = (counts == count).nonzero().flatten()
            tokens = firsts[chosen][:, None] + torch.arange(count)
            lengths = metadata.seq_lens[chosen].long()
            span = int(lengths.max())
            places = torch.arange(span)
            blocked = places > positions[real][tokens][:, :, None]
            stale = (places >= lengths[:, None])[:, :, None, None]
            pages = metadata.block_table[chosen, : -(-span // self.page)].long()
            self.rows.append(_Rows(tokens.flatten(), pages, blocked, stale))

    def store(self, index: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put ``k, v [n, kv, d]`` of layer ``index`` into the cache."""
        cache = self.caches[index]
        cache[slots // self.page, :, slots % self.page] = torch.cat((k, v), 2).to(cache.dtype)

    def __call__(self, index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q [n, heads, d]``, ``k, v [n, kv, d]`` of layer ``index`` to ``[n, width]``; stores keys and values."""
        self.store(index, self.own_slots, k, v)
        mixed = torch.empty(len(q), self.lm.config.width, dtype=torch.float64)
        for rows in self.rows:
            requests, steps, span = rows.blocked.shape
            past = self.caches[index][rows.pages].permute(0, 1, 3, 2, 4).flatten(1, 2)[:, :span].double()
            keys, values = past.masked_fill_(rows.stale, 0.0).chunk(2, 3)
            queries = q[rows.tokens].reshape(requests, steps, *q.shape[1:])
            mixed[rows.tokens] = self.lm.mix(queries, keys, values, rows.blocked)
        return mixed


class PicogramExactLM(nn.Module):
    """What vLLM asks of a model: ``embed_input_ids``, ``forward``, ``compute_logits``, ``load_weights``."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        if vllm_config.parallel_config.world_size > 1 or vllm_config.model_config.dtype != torch.float32:
            raise ValueError("the exact model runs in one process, with dtype float32")
        hf = vllm_config.model_config.hf_config
        self.names: list[str] = hf.picogram_prompts
        self.config = LMConfig(
            layers=hf.num_hidden_layers,
            width=hf.hidden_size,
            heads=hf.num_attention_heads,
            kv_heads=hf.num_key_value_heads,
            head_width=hf.head_dim,
            hidden=hf.intermediate_size,
            vocabulary=hf.picogram_vocabulary,
        )
        c = self.config
        self.first_layer = f"{prefix}layers.0.attention"
        self.layers = nn.ModuleList(
            Attention(
                c.heads,
                c.head_width,
                c.head_width**-0.5,
                num_kv_heads=c.kv_heads,
                cache_config=vllm_config.cache_config,
                prefix=f"{prefix}layers.{i}.attention",
            )
            for i in range(c.layers)
        )
        self.lm: ExactLM | None = None
        self.prompts = torch.zeros(c.layers, 2, 0, c.kv_heads, c.head_width, dtype=torch.float64)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take the converted tensors and the prompts' tables."""
        tensors = {name: tensor.clone() for name, tensor in weights}
        shape = self.prompts.shape
        tables = [tensors.pop(_PROMPT + name).reshape(*shape[:2], -1, *shape[3:]) for name in self.names]
        if tables:
            self.prompts = torch.cat(tables, 2).double()
        self.lm = ExactLM(tensors, self.config)
        return set()

    @property
    def loaded(self) -> ExactLM:
        """The arithmetic; RuntimeError before the weights are there."""
        if self.lm is None:
            raise RuntimeError("the weights have not been loaded")
        return self.lm

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Integers of the residual grid, ``[N, width] float64``; what virtual ids give means nothing."""
        ids = input_ids.long()
        return self.loaded.embed(torch.where(ids < self.config.vocabulary, ids, 0))

    @torch.inference_mode()
    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: object = None,
        inputs_embeds: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Residual integers ``[N, width] float64`` after the last layer."""
        if input_ids is None:
            raise ValueError("no token ids")
        x, lm = self.embed_input_ids(input_ids), self.loaded
        metadata = get_forward_context().attn_metadata
        if not isinstance(metadata, dict):  # a trial run without a cache, to see how much memory it takes
            return lm.blocks(x, positions.long(), lambda index, q, k, v: q.flatten(1))
        step = metadata[self.first_layer]
        number = input_ids.long() - self.config.vocabulary
        virtual = number >= 0
        real = ~virtual
        real[step.num_actual_tokens :] = False
        attend = PagedAttention(lm, self.layers, step, real, positions.long())
        if bool(virtual.any()):
            table = self.prompts[:, :, number[virtual]]
            for index in range(self.config.layers):
                attend.store(index, attend.slots[virtual], *table[index])
        out = torch.zeros_like(x)
        out[real] = lm.blocks(x[real], positions[real].long(), attend)
        return out

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """Integer logits ``[N, vocabulary] float32``, exact, unscaled; virtual ids have none."""
        return self.loaded.logits(hidden_states).float()
