# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Integer-exact tensor arithmetic: the only maths that an entropy coder may depend on.

Integers live in float tensors and every sum stays so small that floating point represents it exactly; then the order
of summation, and with it threads, batches, tiles and devices, cannot matter. Bounds are checked when a layer is built.
"""

from picogram.exact.grid import Grid
from picogram.exact.linear import ACTIVATION_MAX, FRACTION_BITS, ExactLinear, Kernel, floor_shift
from picogram.exact.lookup_tables import divide_round, interpolate_rows

__all__ = [
    "ACTIVATION_MAX",
    "FRACTION_BITS",
    "ExactLinear",
    "Grid",
    "Kernel",
    "divide_round",
    "floor_shift",
    "interpolate_rows",
]
