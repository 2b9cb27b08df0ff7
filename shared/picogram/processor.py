# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the processor at hand is good at."""

from __future__ import annotations

import torch


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it does not, torch is slower than with float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
