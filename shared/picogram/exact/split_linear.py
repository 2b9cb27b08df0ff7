# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers of a language model in exact integers: int8 weights times 14-bit activations.

    real row ── power-of-two scale ── 14-bit integers ── two signed 7-bit digits ── integer product ── row scales

Every product of a digit row (within +-64) and a weight row (within +-127) stays below 2**24 for up to 2,064 inputs, so
the sums are the same integers in any order, whichever kernel adds them up: ``int8`` (int32 sums), ``float32`` (wider
rows in pieces) or ``float64``. What follows is one IEEE multiplication per element, which is the same everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

SplitKernel = Literal["int8", "float32", "float64"]

ACTIVATION_BITS = 14
"""Activations lie within +-2**13: sign and thirteen bits."""
MAX_INPUTS = (1 << 24) // (64 * 127)
_DIGIT = 128.0
_EXPONENT_SHIFT = 52
_EXPONENT_BIAS = 1023
_LEAST_EXPONENT = -960
"""Rows of zeros get this exponent; powers of two around it are still normal numbers."""


def binary_exponent(x: Tensor) -> Tensor:
    """Smallest-or-next ``e`` with ``|x| < 2**e``, from the bits of positive float64 numbers (int64 tensor)."""
    return ((x.view(torch.int64) >> _EXPONENT_SHIFT) - (_EXPONENT_BIAS - 1)).clamp_(min=_LEAST_EXPONENT)


def power_of_two(exponent: Tensor) -> Tensor:
    """``2.0**exponent`` of int64 exponents within +-1000, built from bits: no library power is involved."""
    return ((exponent + _EXPONENT_BIAS) << _EXPONENT_SHIFT).view(torch.float64)


def quantise_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``x [N, C] float64`` to integers within +-2**(bits-1) and the unit of each row: ``x ~ integers * unit [N, 1]``."""
    exponent = binary_exponent(x.abs().amax(1, keepdim=True)) - (bits - 1)
    return torch.round(x * power_of_two(-exponent)), power_of_two(exponent)


class SplitLinear:
    """``y = (x W^T) * scale`` with ``W [out, in] int8`` and ``scale [out] float64``; no bias, as in Llama."""

    def __init__(self, weight: Tensor, scale: Tensor, kernel: SplitKernel) -> None:
        if weight.dtype != torch.int8:
            raise ValueError("weights must be int8")
        if int(weight.min()) < -127:
            raise ValueError("weights must lie within +-127")
        self.kernel = kernel
        self.scale = scale.double()
        dtype = {"int8": torch.int8, "float32": torch.float32, "float64": torch.float64}[kernel]
        self.weight = weight.to(dtype).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """``x [N, in] float64`` reals to ``[N, out] float64`` reals."""
        integers, unit = quantise_rows(x, ACTIVATION_BITS)
        return self.product(integers) * unit * self.scale

    def product(self, integers: Tensor) -> Tensor:
        """The exact integer product of ``[N, in]`` integers within +-2**13, as float64."""
        if self.kernel == "float64":
            return integers @ self.weight.T
        high = torch.round(integers * (1 / _DIGIT))
        digits = torch.cat((high, integers - high * _DIGIT))
        if self.kernel == "float32":
            sums = self._in_pieces(digits.float())
        else:
            sums = torch._int_mm(digits.to(torch.int8), self.weight.T).double()
        rows = len(integers)
        return sums[:rows] * _DIGIT + sums[rows:]

    def _in_pieces(self, digits: Tensor) -> Tensor:
        """Exact float32 products of at most MAX_INPUTS inputs, added up in float64."""
        parts = zip(digits.split(MAX_INPUTS, 1), self.weight.split(MAX_INPUTS, 1), strict=True)
        total = torch.zeros((), dtype=torch.float64)
        for part, weight in parts:
            total = total + (part @ weight.T).double()
        return total


@lru_cache(maxsize=1)
def best_kernel() -> SplitKernel:
    """``int8`` where it proves exact on this machine, else ``float32``.

    Without VNNI, int8 products saturate at 16 bits inside the kernel and are wrong (and slow); so it is tried on the
    worst case, every digit at +-64 and every weight at +-127, before it is trusted.
    """
    return "int8" if int8_is_exact() else "float32"


def int8_is_exact() -> bool:
    """Whether ``torch._int_mm`` gives exact sums of extreme and of random values, in shapes of all kinds."""
    generator = torch.Generator().manual_seed(1)
    for rows, inputs, outputs in ((1, 576, 960), (2, 1536, 576), (34, 576, 192)):
        for extreme in (True, False):
            a = torch.randint(-64, 65, (rows, inputs), generator=generator)
            b = torch.randint(-127, 128, (outputs, inputs), generator=generator)
            if extreme:
                a, b = torch.where(a < 0, -64, 64), torch.where(b < 0, -127, 127)
                a[0], b[0] = 64, 127
            try:
                found = torch._int_mm(a.to(torch.int8), b.to(torch.int8).T)
            except RuntimeError:
                return False
            if not torch.equal(found.double(), a.double() @ b.double().T):
                return False
    return True
