# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The language model with low-rank updates on top of its integer layers, for writing captions, not for coding them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from picogram.exact.split_linear import SplitLinear
from picogram.text.lm.exact_lm import ExactLM


class AdaptedLinear(SplitLinear):
    """``base(x) + up(down(x))`` (Hu et al., LoRA, 2021); shares the weights of ``base``. The update is in floats."""

    def __init__(self, base: SplitLinear, down: Tensor, up: Tensor) -> None:
        """``down [rank, in]``, ``up [out, rank]``."""
        self.kernel, self.scale, self.weight = base.kernel, base.scale, base.weight
        self.down, self.up = down.float().T.contiguous(), up.float().T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + (x.float() @ self.down @ self.up).double()


def adapt(model: ExactLM, tensors: dict[str, Tensor]) -> ExactLM:
    """A model that shares everything with ``model`` but adds ``LAYER.PLACE.{down,up}`` of ``tensors`` to its layers."""
    adapted = copy.copy(model)
    adapted.layers = []
    for index, layer in enumerate(model.layers):
        parts: dict[str, Any] = {
            place: AdaptedLinear(
                getattr(layer, place), tensors[f"{index}.{place}.down"], tensors[f"{index}.{place}.up"]
            )
            for place in ("qkv", "out", "down")
            if f"{index}.{place}.down" in tensors
        }
        adapted.layers.append(replace(layer, **parts))
    return adapted
