# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Batches of photos with one caption each, from the arrays of ``training.joint.data``, changed a little every time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """``pooled [B,C]``, ``cells [B,n,C]``, ``states [B,T,W]`` their ``mask [B,T]``; rows belong together."""

    pooled: Tensor
    cells: Tensor
    states: Tensor
    mask: Tensor


class Pairs:
    """The arrays; photos below ``train`` are for training, the others are held out. What is random comes from ``rng``."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text())
        self.train: int = index["train"]
        self.layers: int = index["layers"]
        self.count = len(index["files"])
        self.captions, self.places = np.array(index["captions"]), np.array(index["states"])
        self.cells = np.load(folder / "cells.npy", mmap_mode="r")
        self.pooled = np.load(folder / "pooled.npy", mmap_mode="r")
        self.states = np.load(folder / "states.npy", mmap_mode="r")
        self.random = rng

    def sample(self, photos: Sequence[int], cells: int, drop_tokens: float) -> PairBatch:
        """Each photo as it is or mirrored, with ``cells`` of its cells, and any of its captions without some tokens."""
        mirrored = self.random.integers(0, 2, len(photos))
        kept = self.random.permutation(self.cells.shape[2])[:cells]
        captions = [int(self.random.integers(self.captions[p], self.captions[p + 1])) for p in photos]
        states, mask = self.texts(captions)
        mask &= torch.from_numpy(self.random.random(mask.shape) >= drop_tokens) | (mask.cumsum(1) == 1)
        seen = [self.cells[m, p][kept] for m, p in zip(mirrored, photos, strict=True)]
        return PairBatch(
            torch.from_numpy(self.pooled[mirrored, photos]).float(),
            torch.from_numpy(np.stack(seen)).float(),
            states,
            mask,
        )

    def texts(self, captions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States ``[B,T,W]`` of captions by number, and the mask ``[B,T]``."""
        lengths = torch.tensor([int(self.places[c + 1] - self.places[c]) for c in captions])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        states = torch.zeros(*mask.shape, self.states.shape[1])
        rows = [self.states[self.places[c] : self.places[c + 1]] for c in captions]
        states[mask] = torch.from_numpy(np.concatenate(rows)).float()
        return states, mask

    def owners(self, start: int, stop: int) -> Tensor:
        """For each caption of photos ``start`` to ``stop``, which of them it belongs to, counted from 0."""
        counts = np.diff(self.captions[start : stop + 1])
        return torch.from_numpy(np.repeat(np.arange(stop - start), counts))
