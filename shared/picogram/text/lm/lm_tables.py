# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Integer tables of cos, sin, exp and the logistic function, computed with decimal arithmetic: no libm, no floats.

Each entry is the value times ``2**ONE_BITS``, rounded to nearest. They are made once, when the weights are converted,
and stored beside them under the same hash.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

ONE_BITS = 30
EXP_STEP_BITS = 10
"""Arguments of the exp and logistic tables lie on a grid of 2**-10."""
EXP_SIZE = 24 << EXP_STEP_BITS
"""exp(-24) is below 2**-30: everything beyond the table is zero."""
SIGMOID_SPAN = 24 << EXP_STEP_BITS

_DIGITS = 40


def _rounded(value: Decimal, bits: int) -> int:
    return int((value * (1 << bits)).to_integral_value(ROUND_HALF_EVEN))


def exp_table(size: int = EXP_SIZE, step_bits: int = EXP_STEP_BITS, one_bits: int = ONE_BITS) -> list[int]:
    """``round(2**one_bits * exp(-k / 2**step_bits))`` for k = 0 .. size-1."""
    with localcontext() as context:
        context.prec = _DIGITS
        ratio = (Decimal(-1) / (1 << step_bits)).exp()
        value, table = Decimal(1), []
        for _ in range(size):
            table.append(_rounded(value, one_bits))
            value *= ratio
        return table


def sigmoid_table() -> list[int]:
    """``round(2**30 / (1 + exp(-(k - SIGMOID_SPAN) / 2**10)))`` for k = 0 .. 2*SIGMOID_SPAN."""
    with localcontext() as context:
        context.prec = _DIGITS
        ratio = (Decimal(-1) / (1 << EXP_STEP_BITS)).exp()
        upper, power = [], Decimal(1)
        for _ in range(SIGMOID_SPAN + 1):
            upper.append(_rounded(1 / (1 + power), ONE_BITS))
            power *= ratio
        one = 1 << ONE_BITS
        return [one - value for value in reversed(upper[1:])] + upper


def rotary_tables(positions: int, half: int, base: int) -> tuple[list[list[int]], list[list[int]]]:
    """cos and sin of ``p * base**(-i / half)`` as ``[positions][half]`` integers (Su et al., RoFormer, eq. 15)."""
    with localcontext() as context:
        context.prec = _DIGITS
        cosines = [[0] * half for _ in range(positions)]
        sines = [[0] * half for _ in range(positions)]
        for i in range(half):
            angle = (-Decimal(base).ln() * i / half).exp()
            step_cos, step_sin = _cos_sin(angle)
            cos, sin = Decimal(1), Decimal(0)
            for p in range(positions):
                cosines[p][i], sines[p][i] = _rounded(cos, ONE_BITS), _rounded(sin, ONE_BITS)
                cos, sin = cos * step_cos - sin * step_sin, sin * step_cos + cos * step_sin
        return cosines, sines


def _cos_sin(angle: Decimal) -> tuple[Decimal, Decimal]:
    """Taylor series; angles here are at most 1."""
    cos, sin, term = Decimal(0), Decimal(0), Decimal(1)
    for n in range(40):
        if n % 2 == 0:
            cos += term if n % 4 == 0 else -term
        else:
            sin += term if n % 4 == 1 else -term
        term = term * angle / (n + 1)
    return cos, sin
