# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing the integers of one picture with the decoder in view: slower encoding of better files in the same format.

    residuals ── float prior ── bits per position ──────────────────┐
                     └── synthesis ── distance per position ────────┴── loss ── gradient ── +1 or -1 per neighbourhood
    moves that lower the loss around them stay; the next pass begins with what is left

Rounding each value by itself is not the best choice of integers (Campos et al., CVPR workshops 2019; Yang, Bamler and
Mandt, NeurIPS 2020). At these rates nearly all residuals are zero, where relaxed rounding with Adam does harm; hence
moves by whole steps: what a move costs itself follows from its scale index, what it does to the rest is its gradient,
and whether it was good is seen. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.latent.distance import Distance
from picogram.latent.exact_prior import RATE_COUNT, hyper_size
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import HYPER_FACTOR, SCALE_COUNT, Prior, code_length
from picogram.latent.tiling import scaled, tiles
from picogram.latent.transforms import STRIDE
from picogram.latent.unfolding import residuals_of, unfold
from picogram.processor import Placement

PASSES: Final = (0, 12, 48)
"""By effort. A pass takes the time of one decoding with gradients and one without."""
WHOLE: Final = 1 << 20
"""Pixels of pictures that get all passes; larger ones get fewer, so that the time stops growing, but never under two."""
LARGEST: Final = 1 << 22
"""Pixels of pictures above which there is no search: a pass would take the better part of a minute."""
PRICE: Final = 3.5
"""What the distance at the start weighs against the bits at the start."""
_STEEPNESS: Final = 12
"""How much a price changes with the size that is wanted."""
TILE: Final = 12
"""Positions of the hyper-latent per side of a tile's kept part: 768 pixels. Memory is that of one tile."""
_APART: Final = 3
"""Positions per side of a neighbourhood with one move a pass."""
_AROUND: Final = 5
"""Positions per side of where a move is judged."""
_PROBED: Final = 0.01


@dataclass(frozen=True)
class Refined:
    """A chosen latent: ``y [1, C, h, w]``, gains undone, and ``z [1, Cz, h/4, w/4]`` in steps."""

    y: Tensor
    z: Tensor


@dataclass(frozen=True)
class _Tile:
    """Slices of rows and columns: of the latent that is read, of what is kept in there, and of the hyper-latent."""

    read: tuple[slice, slice]
    inner: tuple[slice, slice]
    hyper: tuple[slice, slice]


def passes_of(effort: int, pixels: int) -> int:
    """How often a picture is gone through; 0 for none."""
    return (
        0 if pixels > LARGEST else max(min(2, PASSES[effort]), PASSES[effort] * min(WHOLE, pixels) // pixels)
    )


class Refinement:
    """One picture at one rate. The loss is 1 + PRICE for the latent that it begins with."""

    def __init__(
        self,
        net: LatentCodec,
        prior: Prior,
        reach: list[int],
        picture: npt.NDArray[np.uint8],
        start: tuple[Tensor, Tensor],
        rate: int,
        halo: int,
        placement: Placement,
        importance: Tensor | None = None,
    ) -> None:
        """``reach [64]``: of the tables; ``picture [16 h, 16 w, 3]``; ``start``: decoded ``y`` and ``z`` in steps;
        ``halo``: positions that the synthesis sees in each direction; ``placement``: of ``net``, ``prior`` and ``start``;
        ``importance [1, 1, h, w]``: of each position's distance, None: all alike. ``watch``, to be set, is called before
        each pass and may raise."""
        self.net, self.prior, self.picture, self.placement = net, prior, picture, placement
        self.importance = None if importance is None else importance.to(placement.device)
        self.halo = -(-halo // HYPER_FACTOR)
        self.reach = torch.tensor(reach, dtype=torch.float32, device=placement.device)
        self.position = torch.tensor([rate / (RATE_COUNT - 1)], device=placement.device)
        self.gain = net.gain(self.position)
        self.price = PRICE
        self.watch: Callable[[], None] = lambda: None
        self.share: float | None = None
        self.y, self.z = (part.float() for part in start)
        with torch.no_grad():
            self.residuals = residuals_of(prior, self.y, self.z, self.position)
            self.bits, self.units = 1.0, (1.0, 1.0)
            self.bits, *units = self._measured(self.residuals)
            self.units = (units[0], units[1])

    def run(self, passes: int) -> Refined:
        """The best that was found, going on from what was found before."""
        for tile in self._tiles():
            work = _Window(self, tile)
            if self.share is None:
                self.share = work.curvature()
            self.residuals[:, :, *tile.read] = work.search(passes, self.price * self.share)
        with torch.no_grad():
            y, _, _ = unfold(self.prior, self.residuals, self.z, self.position)
        return Refined(y / self.gain, self.z)

    def steer(self, size: float) -> None:
        """Let the next run find a latent of ``size`` times the bits, roughly."""
        self.price *= min(2.0, max(0.5, size**_STEEPNESS))

    def loss(self, y: Tensor, rate: float, size: float) -> float:
        """Of a latent ``y [1, C, h, w]``, gains undone, of which ``size`` is the bits over those of the start."""
        y, position = y.clone(), torch.tensor([rate], device=y.device)
        with torch.no_grad():
            total = [0.0, 0.0]
            for tile in self._tiles():
                for i, part in enumerate(self._parts(tile, y[:, :, *tile.read], position)):
                    total[i] += float(part[:, :, *tile.inner].sum())
        return size + PRICE * Distance.joined(total[0] / self.units[0], total[1] / self.units[1])

    def _measured(self, residuals: Tensor) -> tuple[float, float, float]:
        """Bits, and both distances."""
        y, bits, _ = unfold(self.prior, residuals, self.z, self.position)
        total = [0.0, 0.0]
        for tile in self._tiles():
            for i, part in enumerate(self._parts(tile, y[:, :, *tile.read] / self.gain, self.position)):
                total[i] += float(part[:, :, *tile.inner].sum())
        return max(1.0, float(bits.sum())), max(1e-9, total[0]), max(1e-9, total[1])

    def _parts(self, tile: _Tile, y: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        return self.distance(tile)(y, position)

    def distance(self, tile: _Tile) -> Distance:
        """From the original within a tile."""
        rows, cols = (scaled(side, STRIDE) for side in tile.read)
        importance = None if self.importance is None else self.importance[:, :, *tile.read]
        return Distance(self.net, self.picture[rows, cols], self.placement, importance)

    def _tiles(self) -> Iterator[_Tile]:
        height, width = self.y.shape[2:]
        for row, col in tiles(*hyper_size(height, width), self.halo, TILE):
            read, inner = [], []
            for span, length in ((row, height), (col, width)):
                wide = scaled(span.read, HYPER_FACTOR)
                read.append(slice(wide.start, min(length, wide.stop)))
                inner.append(scaled(span.inner, HYPER_FACTOR))
            yield _Tile((read[0], read[1]), (inner[0], inner[1]), (row.read, col.read))


class _Window:
    """The search within one tile."""

    def __init__(self, whole: Refinement, tile: _Tile) -> None:
        self.whole, self.distance = whole, whole.distance(tile)
        self.residuals = whole.residuals[:, :, *tile.read].clone()
        self.z = whole.z[:, :, *tile.hyper]
        kept = torch.zeros_like(self.residuals[:, :1])
        kept[:, :, *tile.inner] = 1
        self.kept = kept > 0

    def loss(self, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Per position ``[1, 1, h, w]``, and the scale indices."""
        whole = self.whole
        y, bits, indices = unfold(whole.prior, residuals, self.z, whole.position)
        near, far = self.distance(y / whole.gain, whole.position)
        joined = Distance.joined(near / whole.units[0], far / whole.units[1])
        return bits / whole.bits + whole.price * joined, indices

    @torch.no_grad()
    def curvature(self) -> float:
        """Second difference of the joined distance by a unit of the latent, from a few moves at once."""
        generator = torch.Generator().manual_seed(1)
        drawn = torch.rand(self.residuals.shape, generator=generator).to(self.residuals.device)
        moves = (drawn < _PROBED / 2).float() - (drawn > 1 - _PROBED / 2).float()
        moved = float((moves / self.whole.gain).square().sum())
        if not moved:
            return 0.0
        y, _, _ = unfold(self.whole.prior, self.residuals, self.z, self.whole.position)

        def at(y: Tensor) -> float:
            near, far = self.distance(y / self.whole.gain, self.whole.position)
            return float(Distance.joined(near / self.whole.units[0], far / self.whole.units[1]).sum())

        return max(0.0, (at(y + moves) + at(y - moves) - 2 * at(y)) / moved)

    def search(self, passes: int, curvature: float) -> Tensor:
        """The residuals of the lowest loss. ``curvature``: of the loss, by a unit of the latent."""
        residuals, best, lowest = self.residuals, self.residuals, float("inf")
        refused = ~self.kept.expand_as(residuals)
        bend = 0.5 * curvature / self.whole.gain.square()
        for _ in range(passes):
            self.whole.watch()
            leaf = residuals.clone().requires_grad_()
            losses, indices = self.loss(leaf)
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
            losses = losses.detach()
            if float(losses.sum()) < lowest:
                best, lowest = residuals, float(losses.sum())
            moves = self._moves(residuals, slope, indices.detach(), bend, refused)
            if not moves.any():
                return best
            with torch.no_grad():
                change = self.loss(residuals + moves)[0] - losses
            good = F.avg_pool2d(change, _AROUND, 1, _AROUND // 2) < 0
            refused = refused | ((moves != 0) & ~good)
            residuals = residuals + moves * good
        with torch.no_grad():
            return residuals if float(self.loss(residuals)[0].sum()) < lowest else best

    def _moves(
        self, residuals: Tensor, slope: Tensor, indices: Tensor, bend: Tensor, refused: Tensor
    ) -> Tensor:
        """-1, 0 or 1 for each residual: the most promising of each neighbourhood."""
        reach = self.whole.reach[indices.round().long().clamp(0, SCALE_COUNT - 1)]
        now = code_length(residuals, indices)
        promise = torch.zeros_like(residuals)
        moves = torch.zeros_like(residuals)
        for step in (1, -1):
            moved = residuals + step
            change = (code_length(moved, indices) - now) / self.whole.bits + step * slope + bend
            better = (change < promise) & (moved.abs() <= reach) & ~refused
            promise, moves = torch.where(better, change, promise), torch.where(better, step, moves)
        most = -F.max_pool2d(-promise.amin(1, keepdim=True), _APART, 1, _APART // 2)
        return moves * ((promise == most) & (promise < 0))
