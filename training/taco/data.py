# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captioned photographs in batches, from what ``training.taco.pack`` and ``training.joint.data`` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from picogram.latent.guide import Guide
from picogram.semantics.joint import JointHeads
from training.taco.pack import HEIGHT, WIDTH

_AT_ONCE = 256


@dataclass(frozen=True)
class Batch:
    """``pixels [B, 3, H, W] 0..1``, ``guide`` with a caption each, and the captions' vectors ``texts [B, D]``."""

    pixels: Tensor
    guide: Guide
    texts: Tensor


class Captioned:
    """The training part; ``bank [N, D]`` holds the vector of each photo's first caption."""

    def __init__(self, photos: Path, states: Path, heads: JointHeads, seed: int) -> None:
        about = json.loads((photos / "photos.json").read_text())
        self.numbers = np.array(about["numbers"][: about["train"]])
        self.pixels = np.memmap(photos / "photos.u8", np.uint8, "r").reshape(-1, HEIGHT, WIDTH, 3)
        index = json.loads((states / "index.json").read_text())
        self.captions, self.places = np.array(index["captions"]), np.array(index["states"])
        self.states = np.load(states / "states.npy", mmap_mode="r")
        self.heads = heads
        self.random = np.random.default_rng(seed)
        self.bank = self._bank()

    @torch.no_grad()
    def _bank(self) -> Tensor:
        firsts = self.captions[self.numbers]
        parts = [self.vectors(self.guide(firsts[i : i + _AT_ONCE])) for i in range(0, len(firsts), _AT_ONCE)]
        return torch.cat(parts)

    def guide(self, captions: np.ndarray) -> Guide:  # type: ignore[type-arg]
        """Captions by their number in the index."""
        rows = [self.states[self.places[c] : self.places[c + 1]] for c in captions]
        mask = torch.arange(max(len(row) for row in rows)) < torch.tensor([len(row) for row in rows])[:, None]
        states = torch.zeros(*mask.shape, self.states.shape[1])
        states[mask] = torch.from_numpy(np.concatenate(rows)).float()
        return Guide(states, mask)

    @torch.no_grad()
    def vectors(self, guide: Guide) -> Tensor:
        """``[B, D]`` in the joint space."""
        return self.heads.text(guide.states, guide.mask)

    def batch(self, count: int) -> Batch:
        """Random photos, as they are or mirrored, each with any of its captions."""
        rows = self.random.integers(len(self.numbers), size=count)
        photos = self.numbers[rows]
        guide = self.guide(self.random.integers(self.captions[photos], self.captions[photos + 1]))
        windows = [self.pixels[r][:, :: self.random.choice((1, -1))] for r in rows]
        pixels = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float().div_(255)
        return Batch(pixels.contiguous(memory_format=torch.channels_last), guide, self.vectors(guide))

    def others(self, count: int) -> Tensor:
        """Vectors ``[count, D]`` of random captions, to tell a photo's own from."""
        return self.bank[torch.from_numpy(self.random.integers(len(self.bank), size=count))]


def without_some(guide: Guide, keep: Tensor) -> Guide:
    """``keep [B]`` False: that row has no caption."""
    return Guide(guide.states, guide.mask & keep[:, None])
