# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A language model with random weights and a byte vocabulary, small enough to make in every test run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from picogram.text.lm.convert import tables
from picogram.text.lm.exact_lm import LMConfig
from picogram.text.lm.tokens import END_OF_LINE, byte_alphabet

CONFIG = LMConfig(layers=3, width=192, heads=3, kv_heads=1, head_width=64, hidden=320, vocabulary=512)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Tensors as ``convert`` makes them."""
    c, g = CONFIG, torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = tables(c)

    def store(name: str, rows: int, columns: int, scale: float) -> None:
        out[name] = torch.randint(-127, 128, (rows, columns), generator=g).to(torch.int8)
        out[f"{name}.scale"] = scale * (0.5 + torch.rand(rows, generator=g, dtype=torch.float64))

    store("embedding", c.vocabulary, c.width, 0.003)
    for i in range(c.layers):
        store(f"{i}.qkv", c.width + 2 * c.kv_width, c.width, 0.002)
        store(f"{i}.out", c.width, c.width, 0.001)
        store(f"{i}.gate_up", 2 * c.hidden, c.width, 0.001)
        store(f"{i}.down", c.width, c.hidden, 0.001)
        for name in ("attention_gain", "mlp_gain"):
            out[f"{i}.{name}"] = 0.5 + torch.rand(c.width, generator=g)
    out["final_gain"] = 0.5 + torch.rand(c.width, generator=g)
    return out


def random_prompt(count: int, seed: int) -> Tensor:
    """A soft prompt of integers, ``[layers, 2, count, kv * d]``."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-6000, 6001, (CONFIG.layers, 2, count, CONFIG.kv_width), generator=g)


def write_weights(path: Path) -> Path:
    """A converted file."""
    save_file({k: v.contiguous() for k, v in random_weights().items()}, path)
    return path


def write_tokenizer(path: Path) -> Path:
    """A byte-level vocabulary of 512 ids: control tokens up to 16, the newline at its place, no merges."""
    alphabet = byte_alphabet()
    pieces = {value: piece for piece, value in alphabet.items()}
    order = [b for b in range(256) if b != 10]
    order.insert(END_OF_LINE - 17, 10)
    vocabulary = {f"<|{i}|>": i for i in range(17)} | {pieces[b]: 17 + i for i, b in enumerate(order)}
    vocabulary |= {f"<|{i}|>": i for i in range(len(vocabulary), CONFIG.vocabulary)}
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": bytes_only,
        "decoder": bytes_only,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
