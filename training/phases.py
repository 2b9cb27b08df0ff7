# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a recipe says: phases, each so many samples long, which mean the same on any machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Phase:
    """One stretch of training with fixed settings.

    ``samples`` or ``steps``: how long, one of both; ``batch`` samples a step. The learning rate rises over ``warmup``
    steps, and falls on a cosine from ``lr`` to ``lr_end`` (None: stays). ``arc``: the part of that cosine that the phase
    runs through, 0..1, for a cosine that several phases share. ``clip``: largest norm of the gradient; ``ema``: decay of
    the averaged weights (0: they are the last ones). ``from_average``: the phase starts from the averaged weights.
    ``freeze``: parameters that start with one of these names do not learn. ``settings``: the task's.
    """

    batch: int
    samples: int = 0
    steps: int = 0
    lr: float = 4e-4
    lr_end: float | None = None
    arc: tuple[float, float] = (0.0, 1.0)
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.999
    from_average: bool = False
    freeze: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.samples) == bool(self.steps) or min(self.samples, self.steps) < 0:
            raise ValueError("a phase has samples or steps, one of both, and more than none")
        if self.batch < 1:
            raise ValueError("a step has one sample at least")
        if isinstance(self.freeze, str):
            raise ValueError("freeze is a list of names")
        for name in ("arc", "freeze"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.arc) != 2:
            raise ValueError("an arc has a start and an end")

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Phase:
        """From JSON. Raises TypeError or ValueError for what is no phase."""
        return cls(**raw)

    @property
    def length(self) -> int:
        """In steps."""
        return self.steps or max(1, math.ceil(self.samples / self.batch))

    def rate(self, done: int, warm: int) -> float:
        """The learning rate ``done`` steps into the phase, ``warm`` steps after the optimiser last started cold."""
        rise = min(1.0, (min(done, warm) + 1) / max(1, self.warmup))
        if self.lr_end is None:
            return self.lr * rise
        first, last = self.arc
        place = first + (last - first) * min(1.0, done / self.length)
        return rise * (self.lr_end + (self.lr - self.lr_end) * 0.5 * (1 + math.cos(math.pi * place)))


def read_phases(path: Path) -> list[Phase]:
    """The phases of a recipe. Raises TypeError or ValueError for one that has other fields."""
    found = [Phase.of(raw) for raw in json.loads(path.read_text())["phases"]]
    if not found:
        raise ValueError("a recipe has one phase at least")
    return found


def scaled(phases: Sequence[Phase], samples: int) -> list[Phase]:
    """The same recipe in ``samples`` altogether, each phase with its share: what a machine lent by the minute can do."""
    total = sum(p.length * p.batch for p in phases)
    return [
        replace(p, steps=0, samples=max(p.batch, round(p.length * p.batch * samples / total))) for p in phases
    ]
