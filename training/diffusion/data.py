# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Random windows of the pairs that ``training.diffusion.pairs`` wrote, with captions where there are some."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from picogram.latent.transforms import STRIDE
from training.diffusion.pairs import CAPTIONS, LONGEST


@dataclass(frozen=True)
class Batch:
    """``original, base [B, 3, S, S]`` 0..1, ``latent [B, C, S/16, S/16]``, ``rate [B]`` 0..1, ``ids [B, T]`` and
    ``lengths [B]`` of captions (0: none)."""

    original: Tensor
    base: Tensor
    latent: Tensor
    rate: Tensor
    ids: Tensor
    lengths: Tensor


class Source:
    """One group of pairs of the same shape, memory-mapped."""

    def __init__(self, folder: Path, name: str, about: dict[str, int]) -> None:
        count, height, width = about["count"], about["height"], about["width"]
        self.shape = height, width
        self.count = count

        def array(part: str, dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
            return np.memmap(folder / f"{name}.{part}", dtype, "r").reshape(count, *shape)

        self.original = array("original.u8", np.uint8, height, width, 3)
        self.base = array("base.u8", np.uint8, height, width, 3)
        self.latent = array("latent.f16", np.float16, height // STRIDE, width // STRIDE, -1)
        self.rate = array("rate.u8", np.uint8)
        captioned = (folder / f"{name}.words.u16").stat().st_size > 0
        self.words = array("words.u16", np.uint16, CAPTIONS, LONGEST) if captioned else None
        self.lengths = array("lengths.u8", np.uint8, CAPTIONS) if captioned else None


class Pairs:
    """Batches from all sources."""

    def __init__(self, folder: Path, seed: int) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        self.sources = {n: Source(folder, n, about) for n, about in meta["sources"].items()}
        self.random = np.random.default_rng(seed)

    def batch(self, name: str, count: int, crop: int, drop: float) -> Batch:
        """``count`` windows of ``crop`` pixels (a multiple of 32) of a source; captions are dropped with ``drop``."""
        source, random = self.sources[name], self.random
        side = crop // STRIDE
        rows = random.integers(source.count, size=count)
        cells = [random.integers((extent - crop) // STRIDE + 1, size=count) for extent in source.shape]
        parts: dict[str, list[np.ndarray[Any, Any]]] = {"original": [], "base": [], "latent": []}
        for row, top, left in zip(rows, *cells, strict=True):
            y, x = top * STRIDE, left * STRIDE
            for part in ("original", "base"):
                parts[part].append(getattr(source, part)[row, y : y + crop, x : x + crop])
            parts["latent"].append(source.latent[row, top : top + side, left : left + side])
        original, base, latent = (torch.from_numpy(np.stack(p)).permute(0, 3, 1, 2) for p in parts.values())
        ids = torch.zeros(count, LONGEST, dtype=torch.long)
        lengths = torch.zeros(count, dtype=torch.long)
        if source.words is not None and source.lengths is not None:
            which = random.integers(CAPTIONS, size=count)
            ids = torch.from_numpy(source.words[rows, which].astype(np.int64))
            kept = random.random(count) >= drop
            lengths = torch.from_numpy(source.lengths[rows, which].astype(np.int64) * kept)
        longest = int(lengths.max())
        rate = torch.from_numpy(source.rate[rows].astype(np.float32)) / 255
        original, base = original.float() / 255, base.float() / 255
        return Batch(original, base, latent.float(), rate, ids[:, :longest], lengths)
