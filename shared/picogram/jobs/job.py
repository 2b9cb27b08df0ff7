# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What travels: a job goes in, a result or an exception comes out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["encode", "decode", "inspect"]


@dataclass(frozen=True)
class Result:
    """What a handler made of one job: bytes of some media type, and facts about them."""

    payload: bytes
    media_type: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase (``queue``, ``run``); filled in by the worker, summed over a route."""


@dataclass(frozen=True)
class Job:
    """One thing to do.

    ``route`` names the steps still to take, the next one first; each is a queue with its own workers, and the
    result of one step is the payload of the next. Jobs of one step with equal ``compatibility`` may share a
    batch; ``cost`` (pixels, where known) says how much of a batch one fills. Times are Unix seconds, for they
    cross machines.
    """

    kind: Kind
    payload: bytes
    route: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    compatibility: str = ""
    cost: int = 1
    deadline: float | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    queued_at: float = field(default_factory=time.time)
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.route:
            raise ValueError("a job needs at least one step to take")

    @property
    def step(self) -> str:
        """The step to take now."""
        return self.route[0]

    def expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def advance(self, result: Result) -> Job:
        """The same job at the next step of its route, fed with this step's result."""
        return replace(
            self,
            payload=result.payload,
            route=self.route[1:],
            options={**self.options, **result.metadata},
            queued_at=time.time(),
            timings=result.timings,
        )


Outcome = Result | Exception
Handler = Callable[[list[Job]], list[Outcome]]
"""One outcome per job, in order; an exception in the list fails that job only."""
