# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The integer twin of ``prior``: the same networks on ``exact/``, which code and decode files.

    z ── hyper synthesis ── h ──┐
    for slice s, for white then black squares:
        index, mean = net_s(h, decoded so far)         integers, the same everywhere
        encoder: r = clamp(round(y - mean)) ── tables[index] ── bytes     decoder: the reverse
        decoded = mean + r

Fixed point throughout: one quantisation step is ``2**FRACTION_BITS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from picogram.bitstream.rangecoder import CountTable
from picogram.exact import FRACTION_BITS, ExactLinear, Grid, Kernel, interpolate_rows
from picogram.exact.grid import depth_to_space, in_chunks
from picogram.latent.prior import HYPER_FACTOR, SCALE_COUNT, PriorConfig

RATE_COUNT = 256
"""Rate indices 0 (coarsest) to 255 (finest): one byte in the file."""
ONE = 1 << FRACTION_BITS


@dataclass
class Step:
    """One colour of one slice: what the coder needs to know. All ``[B*P, size] int64``, images one after another."""

    mean: Tensor
    index: Tensor


class ExactPrior:
    """Integer hyper synthesis, slice networks and count tables, from the tensors of a shipped model.

    Tensors, all integers: ``NAME.weight [out, in]`` (3x3 kernels flattened neighbour-major), ``NAME.bias``,
    ``NAME.shift`` for each layer; ``rate_shift``, ``index_base``, ``hyper_mean``, ``hyper_index`` ``[anchors, C]``;
    ``table_counts`` (all tables after one another) and ``table_reach [64]`` (symbols are -reach..reach).
    """

    def __init__(self, tensors: dict[str, Tensor], config: PriorConfig, kernel: Kernel = "float64") -> None:
        self.config = config
        names = sorted({n.removesuffix(".weight") for n in tensors if n.endswith(".weight")})
        self.layers = {
            n: ExactLinear(tensors[f"{n}.weight"], tensors[f"{n}.bias"], int(tensors[f"{n}.shift"]), kernel)
            for n in names
        }
        self.anchors = {
            n: tensors[n].to(torch.int64) for n in ("rate_shift", "index_base", "hyper_mean", "hyper_index")
        }
        self.reach = [int(r) for r in tensors["table_reach"]]
        counts = tensors["table_counts"].to(torch.int64).split([2 * r + 1 for r in self.reach])
        self.tables = [CountTable(c.numpy()) if r else None for c, r in zip(counts, self.reach, strict=True)]

    @cached_property
    def code_lengths(self) -> Tensor:
        """Bits of residual ``r`` under table ``i`` at ``[i, r + max(reach)]``; for estimates only."""
        offset = max(self.reach)
        lengths = torch.zeros(len(self.reach), 2 * offset + 1, dtype=torch.float64)
        for i, (table, reach) in enumerate(zip(self.tables, self.reach, strict=True)):
            if table is not None:
                lengths[i, offset - reach : offset + reach + 1] = torch.from_numpy(table.bits())
        return lengths

    def at_rate(self, name: str, rates: list[int]) -> Tensor:
        """An anchor table at each image's rate index: ``[B, C] int64``."""
        return torch.stack([interpolate_rows(self.anchors[name], r, RATE_COUNT - 1) for r in rates])

    def hyper_step(self, rates: list[int], positions: int) -> Step:
        """Means and indices of the hyper-latent, ``positions`` a picture."""
        mean = self.at_rate("hyper_mean", rates).repeat_interleave(positions, 0)
        return Step(mean, _to_index(self.at_rate("hyper_index", rates)).repeat_interleave(positions, 0))

    def hyper_synthesis(self, z: Tensor, rates: list[int], height: int, width: int) -> Tensor:
        """``z [B*hz*wz, Cz] int64`` to features of the ``height`` x ``width`` latent: ``[B*h*w, W] float64``."""
        batch, hz, wz = len(rates), *hyper_size(height, width)
        grid = Grid(batch, hz, wz)
        up = grid.convolve(grid.field(z.double()), grid.inside, self.layers["hyper_up"])
        up = depth_to_space(up, batch, hz, wz).clamp_(min=0)
        last = depth_to_space(in_chunks(up, self.layers["hyper_last"]), batch, 2 * hz, 2 * wz)
        features = last.reshape(batch, 4 * hz, 4 * wz, -1)[:, :height, :width]
        shift = self.at_rate("rate_shift", rates).double()[:, None, None]
        return (features + shift).clamp_(min=0).reshape(batch * height * width, -1)

    def passes(self, hyper: Tensor, rates: list[int], height: int, width: int) -> Iterator[CodingPass]:
        """The coding order of the latent; ``reveal`` must be called on each pass before the next is drawn."""
        grid = Grid(len(rates), height, width)
        decoded = grid.zeros(sum(self.config.slices))
        bases = self.at_rate("index_base", rates)
        start = 0
        for number, size in enumerate(self.config.slices):
            for colour in (0, 1):
                net = f"nets.{2 * number + colour}"
                yield CodingPass(
                    self, grid, hyper, decoded, bases[:, start : start + size], net, start, colour
                )
            start += size

    def rows(self, decoded: Tensor, rates: list[int], height: int, width: int) -> Tensor:
        """The finished latent of a field, in steps: ``[B, C, h, w] float64``, multiples of ``1 / ONE``."""
        inside = decoded[Grid(len(rates), height, width).inside]
        return inside.reshape(len(rates), height, width, -1).permute(0, 3, 1, 2) / ONE


class CodingPass:
    """One colour of one slice, all of its positions at once.

    ``step``: means and indices for the coder, ``[N, size]``; ``order [N]``: rows of the latent that it is about, of
    ``B * h * w``; ``start``, ``size``: its channels; ``decoded``: the field so far, in fixed point.
    """

    def __init__(
        self,
        prior: ExactPrior,
        grid: Grid,
        hyper: Tensor,
        decoded: Tensor,
        base: Tensor,
        net: str,
        start: int,
        colour: int,
    ) -> None:
        self.decoded, self.size, self.start = decoded, base.shape[1], start
        self.order, self.positions = grid.colour_order[colour], grid.colours[colour]
        layers = prior.layers
        known = decoded[:, : start + self.size]
        context = grid.convolve(known, self.positions, layers[f"{net}.context"]).clamp_(min=0)
        mixed = torch.cat([context, hyper[self.order]], 1)
        out = in_chunks(mixed, lambda rows: layers[f"{net}.head"](layers[f"{net}.mix"](rows).clamp_(min=0)))
        image = self.order // (grid.height * grid.width)
        index = out[:, self.size :].long() + base[image]
        self.step = Step(out[:, : self.size].long(), _to_index(index))

    def reveal(self, residual: Tensor) -> None:
        """Enter the decoded residuals, ``[N, size] int64``."""
        value = (residual * ONE + self.step.mean).clamp(-(1 << 16), 1 << 16)
        self.decoded[self.positions, self.start : self.start + self.size] = value.double()


def _to_index(fixed: Tensor) -> Tensor:
    """Fixed-point scale index to the nearest table."""
    return (fixed + ONE // 2 >> FRACTION_BITS).clamp(0, SCALE_COUNT - 1)


def hyper_size(height: int, width: int) -> tuple[int, int]:
    """Positions of the hyper-latent over a latent of ``height`` x ``width``."""
    return -(-height // HYPER_FACTOR), -(-width // HYPER_FACTOR)
