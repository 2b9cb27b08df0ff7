# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Matrix products of integers with one requantisation: ``clamp(floor((x W^T + b + half) / 2**shift))``.

Three kernels give the same integers. ``float64``: one product whose sums stay below 2**53. ``float32``: activations
are cut into digits so short that each product's sums stay below 2**24; for devices with slow doubles. ``int64``: the
reference. Division by a power of two and ``floor`` are exact in binary floating point.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

FRACTION_BITS = 8
"""Activations are fixed-point numbers with this many bits after the point."""
ACTIVATION_MAX = 1 << 16
"""Activations are clamped to +-this: +-256 as a number."""

Kernel = Literal["float64", "float32", "int64"]
_EXACT_LIMIT = {"float64": 1 << 53, "float32": 1 << 24}


def floor_shift(x: Tensor, shift: int) -> Tensor:
    """``floor(x / 2**shift + 1/2)`` of integers, in the dtype of ``x`` (int64 or an exact float64)."""
    if x.dtype == torch.int64:
        return x + (1 << shift >> 1) >> shift
    return torch.floor((x + float(1 << shift >> 1)) * 2.0**-shift)


class ExactLinear:
    """Integer linear layer on rows; also every convolution, once neighbourhoods are gathered (``grid``).

    ``weight``: integers ``[out, in]``, ``bias``: integers ``[out]`` on the grid of the products, ``shift``: bits to drop.
    ValueError if a sum could leave the exact range.
    """

    def __init__(self, weight: Tensor, bias: Tensor, shift: int, kernel: Kernel = "float64") -> None:
        self.shift, self.kernel = shift, kernel
        weight, bias = weight.to(torch.int64), bias.to(torch.int64)
        row_sums = weight.abs().sum(1)
        half = 1 << shift >> 1
        if int((row_sums * ACTIVATION_MAX + bias.abs()).max()) + half >= _EXACT_LIMIT["float64"]:
            raise ValueError("sums of this layer can leave the range where float64 is exact")
        self.bias = bias if kernel == "int64" else bias.double()
        self.weight = weight.T.contiguous() if kernel == "int64" else weight.T.contiguous().double()
        self.digit_bits = 0
        if kernel == "float32":
            self.weight = self.weight.float()
            self.digit_bits = (_EXACT_LIMIT["float32"] // (int(row_sums.max()) + 1)).bit_length() - 1
            if self.digit_bits < 1:
                raise ValueError("the weights of this layer are too large for the float32 kernel")

    def __call__(self, x: Tensor) -> Tensor:
        """``x``: ``[N, in]`` float64 integers within +-ACTIVATION_MAX; returns ``[N, out]`` of the same kind."""
        if self.kernel == "int64":
            total = x.to(torch.int64) @ self.weight + self.bias
            return floor_shift(total, self.shift).clamp(-ACTIVATION_MAX, ACTIVATION_MAX).double()
        total = x @ self.weight if self.kernel == "float64" else self._by_digits(x)
        return floor_shift(total + self.bias, self.shift).clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)

    def _by_digits(self, x: Tensor) -> Tensor:
        """Sum of exact float32 products of short digits of ``x``, lowest first."""
        base = float(1 << self.digit_bits)
        total, unit, rest = torch.zeros((), dtype=torch.float64, device=x.device), 1.0, x
        for _ in range(-(-ACTIVATION_MAX.bit_length() // self.digit_bits)):
            high = torch.trunc(rest / base)
            digit = rest - high * base
            total = total + (digit.float() @ self.weight).double() * unit
            rest, unit = high, unit * base
        return total
