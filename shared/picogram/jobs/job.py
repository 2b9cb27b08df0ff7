# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What travels: a job goes in, a result or an exception comes out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from picogram.jobs.control import JobControl

Priority = Literal["high", "normal"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal")
"""In the order of service: a normal job runs when no high one waits."""


@dataclass(frozen=True)
class Result:
    """What a handler made of one job: bytes of some media type, facts about them, and what a person should know.

    ``metadata`` holds plain values only (what JSON has), for it crosses machines.
    """

    payload: bytes
    media_type: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase (``queue``, ``run``); filled in by the worker, summed over a route."""


@dataclass(frozen=True)
class Job:
    """One thing to do.

    ``route`` names the steps still to take, the next one first. A step is ``queue`` or ``queue:task``: each queue has
    its own workers, the task tells them what to do. The result of one step is the payload of the next; its
    metadata join ``facts`` and its warnings ``warnings``, which travel on to the end of the route. Jobs of one task
    with equal ``compatibility`` may share a batch; ``cost``, in whatever unit submitter and worker agree on, says how
    much of a batch one fills. Times are Unix seconds, for they cross machines.

    ``kind`` is the submitter's name for what was asked, which a queue only keeps. ``owner`` is who may ask for the job
    (empty: anyone), ``key`` the caller's idempotency key, which is the owner's own, and ``fingerprint`` what a
    repetition must equal. ``trace`` is a W3C traceparent. ``attempt`` counts deliveries of the present step. ``control``
    belongs to the worker that runs the job and does not travel.
    """

    kind: str
    payload: bytes
    route: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    compatibility: str = ""
    cost: int = 1
    deadline: float | None = None
    priority: Priority = "normal"
    owner: str = ""
    key: str = ""
    fingerprint: str = ""
    trace: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: float = field(default_factory=time.time)
    queued_at: float = field(default_factory=time.time)
    attempt: int = 1
    timings: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    control: JobControl = field(default_factory=JobControl, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.route:
            raise ValueError("a job needs at least one step to take")

    @property
    def step(self) -> str:
        """The queue to wait in now."""
        return self.route[0].partition(":")[0]

    @property
    def task(self) -> str:
        """What that queue's worker is to do; empty where it does one thing only."""
        return self.route[0].partition(":")[2]

    @property
    def batch_key(self) -> tuple[str, str]:
        """Jobs of one queue may share a batch if this is equal."""
        return self.task, self.compatibility

    def expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def after(self, result: Result) -> Job | Result:
        """The same job at its next step, or the result of the whole route where this was its last."""
        facts = {**self.facts, **result.metadata}
        warnings = self.warnings + result.warnings
        if len(self.route) == 1:
            return replace(result, metadata=facts, warnings=warnings)
        return replace(
            self,
            payload=result.payload,
            route=self.route[1:],
            facts=facts,
            warnings=warnings,
            queued_at=time.time(),
            attempt=1,
            timings=result.timings,
            control=JobControl(),
        )


Outcome = Result | Exception
Handler = Callable[[list[Job]], list[Outcome]]
"""One outcome per job, in order; an exception in the list fails that job only.

A handler that takes long calls ``job.control.check()`` between its parts, which raises JobCanceled when nobody wants
that job any more, and ``job.control.progress(...)``.
"""
