# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Latents to bytes and back, under the integer entropy model.

Within one pass, symbols are grouped by scale index (ascending) and keep raster order inside a group, position by
position, channel by channel. Elements whose table has reach 0 are not coded: they equal their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picogram.bitstream.rangecoder import RangeDecoder, RangeEncoder
from picogram.latent.exact_prior import ONE, ExactPrior, Step, hyper_size


class _ByIndex:
    """A stable grouping of flat elements by scale index."""

    def __init__(self, index: Tensor) -> None:
        flat = index.flatten().numpy().astype(np.uint8)
        self.order = np.argsort(flat, kind="stable")
        counts = np.bincount(flat, minlength=int(flat.max(initial=0)) + 1)
        self.groups = [
            (i, int(end - n), int(end))
            for i, (n, end) in enumerate(zip(counts, counts.cumsum(), strict=True))
            if n
        ]


def put_residuals(encoder: RangeEncoder, prior: ExactPrior, residual: Tensor, index: Tensor) -> None:
    """Append one pass of one image: ``residual`` and ``index``, ``[N, size] int64``, under ``prior.tables[index]``."""
    grouped = _ByIndex(index)
    ordered = residual.flatten().numpy()[grouped.order].astype(np.int32)
    for i, begin, end in grouped.groups:
        table = prior.tables[i]
        if table is not None:
            encoder.put(ordered[begin:end] + np.int32(prior.reach[i]), table)


def get_residuals(decoder: RangeDecoder, prior: ExactPrior, index: Tensor) -> Tensor:
    """Read one pass of one image back; the shape of ``index``, int64."""
    grouped = _ByIndex(index)
    ordered = np.zeros(index.numel(), np.int64)
    for i, begin, end in grouped.groups:
        table = prior.tables[i]
        if table is not None:
            ordered[begin:end] = decoder.get(end - begin, table).astype(np.int64) - prior.reach[i]
    flat: npt.NDArray[np.int64] = np.empty_like(ordered)
    flat[grouped.order] = ordered
    return torch.from_numpy(flat).reshape(index.shape)


def quantise(prior: ExactPrior, value: Tensor, step: Step, dead_zone: Tensor | None = None) -> Tensor:
    """Nearest codable residual of ``value [N, size]`` in steps (encoder only): int64.

    ``dead_zone [N]``: how much farther than one half, in steps, a residual has to lie to leave zero, and than n and a
    half to become n + 1.
    """
    residual = value.double() - step.mean / ONE
    half = 0.5 if dead_zone is None else 0.5 - dead_zone[:, None]
    rounded = residual.sign() * torch.floor(residual.abs() + half)
    reach = torch.tensor(prior.reach)[step.index]
    return rounded.long().clamp(min=-reach, max=reach)


def encode_latents(
    prior: ExactPrior, y: Tensor, z: Tensor, rates: list[int], dead_zone: Tensor | None = None
) -> tuple[list[bytes], Tensor]:
    """One range-coded string per image of ``y [B, C, h, w]`` and ``z [B, Cz, h/4, w/4]``, floats in steps.

    ``dead_zone [B * h * w]``: see ``quantise``. Also returns what a decoder must find, as ``decode_latents`` does.
    """
    encoders = [RangeEncoder() for _ in rates]

    def put(image: int, residual: Tensor, index: Tensor) -> None:
        put_residuals(encoders[image], prior, residual, index)

    y_hat = walk_values(prior, y, z, rates, put, dead_zone)
    return [encoder.finish() for encoder in encoders], y_hat


def estimate_bits(
    prior: ExactPrior, y: Tensor, z: Tensor, rate: int, dead_zone: Tensor | None = None
) -> float:
    """Ideal code length of one image, within rounding what ``encode_latents`` would write."""
    total = 0.0
    lengths, offset = prior.code_lengths, max(prior.reach)

    def add(_: int, residual: Tensor, index: Tensor) -> None:
        nonlocal total
        total += float(lengths[index.flatten(), residual.flatten() + offset].sum())

    walk_values(prior, y, z, [rate], add, dead_zone)
    return total


def walk_values(
    prior: ExactPrior,
    y: Tensor,
    z: Tensor,
    rates: list[int],
    sink: Callable[[int, Tensor, Tensor], None],
    dead_zone: Tensor | None = None,
) -> Tensor:
    """Quantise in coding order; ``sink`` gets image number, residuals and indices. Returns the decoded latent.

    ``dead_zone [B * h * w]``: of ``y``, see ``quantise``.
    """
    batch, _, height, width = y.shape
    rows_z, rows_y = _to_rows(z), _to_rows(y)

    def residuals(step: Step, rows: Tensor, zone: Tensor | None = None) -> Tensor:
        residual = quantise(prior, rows, step, zone)
        for i, (r, index) in enumerate(zip(residual.chunk(batch), step.index.chunk(batch), strict=True)):
            sink(i, r, index)
        return residual

    step = prior.hyper_step(rates, len(rows_z) // batch)
    z_fixed = residuals(step, rows_z) * ONE + step.mean
    hyper = prior.hyper_synthesis(z_fixed, rates, height, width)
    for part in prior.passes(hyper, rates, height, width):
        rows = rows_y[part.order, part.start : part.start + part.size]
        part.reveal(residuals(part.step, rows, None if dead_zone is None else dead_zone[part.order]))
    return prior.rows(part.decoded, rates, height, width)


def decode_latents(prior: ExactPrior, data: list[bytes], rates: list[int], height: int, width: int) -> Tensor:
    """``y_hat [B, C, h, w] float64`` in steps, from one string per image; CorruptBitstream if they cannot be."""
    batch = len(data)
    decoders = [RangeDecoder(d) for d in data]

    def residuals(step: Step) -> Tensor:
        indices = step.index.chunk(batch)
        return torch.cat([get_residuals(d, prior, i) for d, i in zip(decoders, indices, strict=True)])

    hz, wz = hyper_size(height, width)
    step = prior.hyper_step(rates, hz * wz)
    z_fixed = residuals(step) * ONE + step.mean
    hyper = prior.hyper_synthesis(z_fixed, rates, height, width)
    for part in prior.passes(hyper, rates, height, width):
        if len(part.order):
            part.reveal(residuals(part.step))
    return prior.rows(part.decoded, rates, height, width)


def _to_rows(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` to ``[B*h*w, C]``."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
