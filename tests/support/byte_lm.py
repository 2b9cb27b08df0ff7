# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A random language model of the real class, small enough for tests: two layers, bytes for tokens."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from picogram.exact.split_linear import SplitKernel
from picogram.text.lm.convert import tables
from picogram.text.lm.exact_lm import ExactLM, LMConfig
from picogram.text.lm.lm_coder import LMCoder
from picogram.text.lm.tokens import END_OF_LINE, LMTokenizer, byte_alphabet

CONFIG = LMConfig(
    layers=2, width=48, heads=6, kv_heads=2, head_width=8, hidden=96, vocabulary=300, rope_base=10_000
)


@lru_cache(maxsize=1)
def tensors() -> dict[str, Tensor]:
    """Random weights of the size of a trained model's."""
    generator = torch.Generator().manual_seed(5)
    found: dict[str, Tensor] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        found[name] = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
        found[f"{name}.scale"] = torch.rand(outputs, generator=generator, dtype=torch.float64) * 0.004 + 0.001

    linear("embedding", CONFIG.vocabulary, CONFIG.width)
    for i in range(CONFIG.layers):
        linear(f"{i}.qkv", CONFIG.width + 2 * CONFIG.kv_width, CONFIG.width)
        linear(f"{i}.out", CONFIG.width, CONFIG.width)
        linear(f"{i}.gate_up", 2 * CONFIG.hidden, CONFIG.width)
        linear(f"{i}.down", CONFIG.width, CONFIG.hidden)
        for name in ("attention_gain", "mlp_gain"):
            found[f"{i}.{name}"] = torch.rand(CONFIG.width, generator=generator) + 0.5
    found["final_gain"] = torch.rand(CONFIG.width, generator=generator) * 4 + 2
    return found | tables(CONFIG)


def model(kernel: SplitKernel = "float64") -> ExactLM:
    """The model with one kind of products."""
    return ExactLM(tensors(), CONFIG, kernel)


def tokens(folder: Path) -> LMTokenizer:
    """A vocabulary of bytes; the newline has its usual id."""
    letters = sorted(byte_alphabet(), key=lambda c: byte_alphabet()[c])
    newline = next(c for c, b in byte_alphabet().items() if b == 10)
    letters.remove(newline)
    names = [f"<{i}>" for i in range(17)] + letters
    names.insert(END_OF_LINE, newline)
    tokenizer = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return LMTokenizer(path)


def coder(folder: Path, kernel: SplitKernel = "float64") -> LMCoder:
    """Model, vocabulary and random prompts of different lengths."""
    generator = torch.Generator().manual_seed(6)
    prompts = {
        kind: torch.randint(-2000, 2000, (CONFIG.layers, 2, n, CONFIG.kv_width), generator=generator)
        for kind, n in (("short", 3), ("dense", 7), ("plain", 1), ("objects", 2))
    }
    return LMCoder(model(kernel), tokens(folder), prompts)
