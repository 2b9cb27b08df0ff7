# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captioned photographs and text lists as tokens, in batches of similar length."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from picogram.semantics.captioner import sentence

END = 198
"""The newline token ends a text."""
HELD_OUT = 0.1


@dataclass(frozen=True)
class Example:
    """One text and the number of its photo (-1: none)."""

    photo: int
    ids: tuple[int, ...]
    characters: int


def captioned(path: Path) -> tuple[list[dict], list[dict]]:
    """Rows of ``captions.jsonl`` in a tar, sorted by file name: training and held-out tenth."""
    with tarfile.open(path) as tar:
        name = next(n for n in tar.getnames() if n.endswith("captions.jsonl"))
        rows = [json.loads(line) for line in tar.extractfile(name)]
    rows.sort(key=lambda row: row["file"])
    cut = int(len(rows) * (1 - HELD_OUT))
    return rows[:cut], rows[cut:]


def tokenise(tokenizer: Tokenizer, text: str, photo: int = -1) -> Example:
    """A text as the coder sees it: a leading space, the tokens, a newline."""
    ids = tokenizer.encode(" " + text).ids
    return Example(photo, (*ids, END), len(text))


def tokenised(rows: list[dict], tokenizer: Tokenizer, sentences: float) -> list[list[Example]]:
    """All captions of each photo, a share of them written as proper sentences."""
    rng = random.Random(1)

    def written(caption: str) -> str:
        return (sentence(caption) or caption) if rng.random() < sentences else caption

    return [[tokenise(tokenizer, written(c), i) for c in row["captions"]] for i, row in enumerate(rows)]


def batches(examples: list[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of similar lengths, reshuffled each epoch."""
    rng = random.Random(seed)
    while True:
        order = sorted(examples, key=lambda e: len(e.ids) + rng.random() * 3)
        groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        rng.shuffle(groups)
        yield from groups


def pad(group: list[Example]) -> tuple[Tensor, Tensor]:
    """Ids ``[B, T]`` padded with END, and a mask of what is real."""
    longest = max(len(e.ids) for e in group)
    ids = torch.tensor([e.ids + (END,) * (longest - len(e.ids)) for e in group])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in group], dtype=torch.bool)
    return ids, mask
