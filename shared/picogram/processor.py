# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where networks run, as a value, and what the processor at hand is good at."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from picogram.errors import UsageError


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it does not, torch is slower than with float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Placement:
    """Where a network runs, and what it computes in where last bits do not matter. Weights stay float32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Placement:
        """``dtype``: bfloat16, float16 or float32; None: what is fastest there. Raises UsageError for a GPU that is not
        there."""
        found = torch.device(device)
        if found.type == "cuda":
            index = found.index or 0
            if index >= torch.cuda.device_count():
                raise UsageError(f"there is no GPU {device}")
            found = torch.device("cuda", index)  # so that "cuda" and "cuda:0" are equal
        return cls(found, dtype or _fastest(found))

    def autocast(self) -> AbstractContextManager[object]:
        """Within, multiplications are in ``dtype``."""
        kind = self.device.type
        if not torch.amp.is_autocast_available(kind):
            return nullcontext()
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)


def _fastest(device: torch.device) -> torch.dtype:
    """Never float16: the embedded networks were not trained for its range."""
    if device.type == "cuda":
        swift = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        swift = device.type == "cpu" and has_fast_bfloat16()
    return torch.bfloat16 if swift else torch.float32
