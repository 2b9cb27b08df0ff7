# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captioned photographs and text lists as tokens, in batches of similar length."""

from __future__ import annotations

import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from picogram.semantics.captioner import sentence

Rows = list[dict[str, Any]]

END = 198
"""The newline token ends a text."""
HELD_OUT = 0.1


@dataclass(frozen=True)
class Example:
    """One text."""

    ids: tuple[int, ...]
    characters: int


def captioned(path: Path) -> tuple[Rows, Rows]:
    """Rows of ``captions.jsonl`` in a tar, sorted by file name: training and held-out tenth."""
    with tarfile.open(path) as tar:
        name = next(n for n in tar.getnames() if n.endswith("captions.jsonl"))
        file = tar.extractfile(name)
        assert file is not None
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: row["file"])
    cut = int(len(rows) * (1 - HELD_OUT))
    return rows[:cut], rows[cut:]


def tokenise(tokenizer: Tokenizer, text: str) -> Example:
    """A text as the coder sees it: a leading space, the tokens, a newline."""
    ids = tokenizer.encode(" " + text).ids
    return Example((*ids, END), len(text))


def tokenised(rows: Rows, tokenizer: Tokenizer, sentences: float) -> list[list[Example]]:
    """All captions of each photo, a share of them written as proper sentences."""
    rng = random.Random(1)

    def written(caption: str) -> str:
        return (sentence(caption) or caption) if rng.random() < sentences else caption

    return [[tokenise(tokenizer, written(c)) for c in row["captions"]] for row in rows]


class Batches:
    """Endless batches of texts of similar lengths, reshuffled each round."""

    def __init__(self, examples: list[Example], rng: np.random.Generator) -> None:
        self.examples, self.rng = examples, rng
        self.left: list[list[int]] = []

    def next(self, size: int) -> list[Example]:
        """``size`` texts."""
        if not self.left or len(self.left[-1]) != size:
            blurred = [len(e.ids) + 3 * self.rng.random() for e in self.examples]
            order = np.argsort(blurred).tolist()
            groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
            if not groups:
                raise SystemExit(f"{len(self.examples)} texts do not fill a batch of {size}")
            self.left = [groups[i] for i in self.rng.permutation(len(groups))]
        return [self.examples[i] for i in self.left.pop()]


class Shuffled:
    """Endless numbers below ``count``, each once before one comes again."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.count, self.rng = count, rng
        self.left: list[int] = []

    def next(self, size: int) -> list[int]:
        """``size`` of them."""
        if self.count < size:
            raise SystemExit(f"{self.count} photos for training do not fill a batch of {size}")
        if len(self.left) < size:
            self.left = self.rng.permutation(self.count).tolist()
        found, self.left = self.left[:size], self.left[size:]
        return found


def pad(group: list[Example]) -> tuple[Tensor, Tensor]:
    """Ids ``[B, T]`` padded with END, and a mask of what is real."""
    longest = max(len(e.ids) for e in group)
    ids = torch.tensor([e.ids + (END,) * (longest - len(e.ids)) for e in group])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in group], dtype=torch.bool)
    return ids, mask
