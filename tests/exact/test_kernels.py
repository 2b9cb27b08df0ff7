# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The same integers whatever the kernel, thread count, batch, order or chunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from picogram.exact import (
    ACTIVATION_MAX,
    ExactLinear,
    Grid,
    Kernel,
    divide_round,
    floor_shift,
    interpolate_rows,
)
from picogram.exact import grid as grid_module
from picogram.exact.grid import depth_to_space, in_chunks

KERNELS: tuple[Kernel, ...] = ("float64", "float32", "int64")
seeds = st.integers(0, 2**31)


def integers(generator: torch.Generator, *shape: int, peak: int) -> Tensor:
    return torch.randint(-peak, peak + 1, shape, generator=generator)


def random_layer(seed: int) -> tuple[Tensor, Tensor, int, Tensor]:
    g = torch.Generator().manual_seed(seed)
    wide, out, rows, shift = (
        int(torch.randint(*r, (), generator=g)) for r in ((1, 900), (1, 40), (1, 30), (0, 15))
    )
    peak = 2 ** int(torch.randint(1, 12, (), generator=g))
    weight, bias = integers(g, out, wide, peak=peak), integers(g, out, peak=2**30)
    return weight, bias, shift, integers(g, rows, wide, peak=ACTIVATION_MAX).double()


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_kernels_agree_on_random_layers(seed: int) -> None:
    weight, bias, shift, x = random_layer(seed)
    expected = ExactLinear(weight, bias, shift, "int64")(x)
    for kernel in KERNELS[:2]:
        assert torch.equal(ExactLinear(weight, bias, shift, kernel)(x), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_extreme_activations_and_weights_stay_exact(kernel: Kernel) -> None:
    weight = torch.full((2, 1152), 2**9 - 1)
    weight[1] *= -1
    layer = ExactLinear(weight, torch.tensor([1, -1]), 13, kernel)
    x = torch.full((1, 1152), float(ACTIVATION_MAX), dtype=torch.float64)
    x[0, 7] -= 1
    total = (2**9 - 1) * (1152 * ACTIVATION_MAX - 1)
    expected = [
        min(ACTIVATION_MAX, (total + 1 + 4096) >> 13),
        max(-ACTIVATION_MAX, (-total - 1 + 4096) >> 13),
    ]
    assert layer(x)[0].tolist() == expected


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_batches_orders_and_threads_do_not_matter(seed: int) -> None:
    weight, bias, shift, x = random_layer(seed)
    layer = ExactLinear(weight, bias, shift)
    whole = layer(x)
    assert torch.equal(torch.cat([layer(row[None]) for row in x]), whole)
    order = torch.randperm(len(x))
    assert torch.equal(layer(x[order]), whole[order])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(layer(x), whole)
    finally:
        torch.set_num_threads(threads)


def test_layers_that_could_leave_the_exact_range_are_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        ExactLinear(torch.full((1, 2**10), 2**30), torch.zeros(1), 0)


def test_weights_too_large_for_float32_are_refused_there_only() -> None:
    weight = torch.full((1, 2**10), 2**15)
    ExactLinear(weight, torch.zeros(1), 0)
    with pytest.raises(ValueError, match="float32"):
        ExactLinear(weight, torch.zeros(1), 0, "float32")


@given(st.integers(-(2**50), 2**50), st.integers(0, 20))
def test_floor_shift_is_integer_rounding_in_both_types(value: int, shift: int) -> None:
    expected = (value + (2**shift) // 2) // 2**shift
    assert int(floor_shift(torch.tensor(value), shift)) == expected
    assert int(floor_shift(torch.tensor(float(value), dtype=torch.float64), shift)) == expected


@given(st.integers(-(2**40), 2**40), st.integers(1, 1000))
def test_divide_round_rounds_half_up(value: int, divisor: int) -> None:
    assert int(divide_round(torch.tensor(value), divisor)) == (2 * value + divisor) // (2 * divisor)


def test_interpolation_hits_its_anchors_and_stays_between_them() -> None:
    table = torch.tensor([[0, -500], [100, 7], [-300, 900]])
    assert interpolate_rows(table, 0, 255).tolist() == [0, -500]
    assert interpolate_rows(table, 255, 255).tolist() == [-300, 900]
    for index in range(256):
        row = interpolate_rows(table, index, 255)
        low, high = divmod(index * 2, 255)[0], min(2, divmod(index * 2, 255)[0] + 1)
        bounds = torch.stack([table[low], table[high]])
        assert bool((row >= bounds.amin(0)).all() and (row <= bounds.amax(0)).all())


@given(seeds, st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_gathered_convolution_is_convolution(seed: int, batch: int, height: int, width: int) -> None:
    g = torch.Generator().manual_seed(seed)
    kernel, x = integers(g, 4, 3, 3, 3, peak=100), integers(g, batch, 3, height, width, peak=1000)
    grid = Grid(batch, height, width)
    layer = ExactLinear(kernel.permute(0, 2, 3, 1).reshape(4, -1), torch.zeros(4), 0)
    rows = grid.convolve(grid.field(x.permute(0, 2, 3, 1).reshape(-1, 3).double()), grid.inside, layer)
    expected = F.conv2d(x.double(), kernel.double(), padding=1).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
    assert torch.equal(rows.reshape(batch, height, width, 4).permute(0, 3, 1, 2), expected)


def test_chunk_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(3)
    layer = ExactLinear(integers(g, 5, 18, peak=900), integers(g, 5, peak=900), 4)
    grid = Grid(2, 7, 9)
    field = grid.field(integers(g, 126, 2, peak=900).double())
    rows = integers(g, 126, 18, peak=900).double()
    results = []
    for chunk in (1, 10, 10_000):
        monkeypatch.setattr(grid_module, "CHUNK", chunk)
        results.append((grid.convolve(field, grid.inside, layer), in_chunks(rows, layer)))
    for convolved, plain in results[1:]:
        assert torch.equal(convolved, results[0][0])
        assert torch.equal(plain, results[0][1])


def test_depth_to_space_is_pixel_shuffle() -> None:
    x = torch.arange(2 * 12 * 3 * 5).reshape(2, 12, 3, 5)
    rows = depth_to_space(x.permute(0, 2, 3, 1).reshape(-1, 12), 2, 3, 5)
    expected = F.pixel_shuffle(x, 2).permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(rows, expected)


def test_colours_split_the_grid() -> None:
    grid = Grid(2, 3, 3)
    together = torch.cat(grid.colours).sort().values
    assert torch.equal(together, grid.inside.sort().values)
    assert [len(c) for c in grid.colours] == [10, 8]
