# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the in-process broker remembers of a job, and for how long."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from picogram.errors import JobCanceled, PicogramError
from picogram.jobs.job import Job, Result
from picogram.jobs.state import Event, EventName, JobState, Status

MAX_EVENTS: Final = 256
"""Events kept per job; of more, the oldest signs of progress go."""


class Record:
    """A job's state and events."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.outcome: Result | PicogramError | None = None
        self.ended = asyncio.Event()
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self._count = 0
        self._state = JobState(
            job.id,
            job.kind,
            "queued",
            job.route[0],
            job.priority,
            job.owner,
            job.created_at,
            job.created_at,
            job.deadline,
        )

    @property
    def deadline(self) -> float:
        """Unix seconds; infinity where there is none."""
        return float("inf") if self.job.deadline is None else self.job.deadline

    def state(self) -> JobState:
        """As of now."""
        return self._state

    def queued(self, job: Job) -> None:
        """It waits for its next step, or again for the same."""
        self.job = replace(job, payload=b"")
        self._change("queued", step=job.route[0], attempt=0, progress=0.0)
        self.tell("queued", {"step": job.route[0]})

    def running(self, job: Job) -> None:
        """A worker has it."""
        self._change("running", attempt=job.attempt)
        self.tell("running", {"step": job.route[0]})

    def end(self, outcome: Result | PicogramError) -> None:
        """Nothing changes any more."""
        self.outcome = outcome
        self.job = replace(self.job, facts={}, options={})
        if isinstance(outcome, Result):
            self._change("done", progress=1.0)
            self.tell("done", {})
        else:
            name: Status = "canceled" if isinstance(outcome, JobCanceled) else "failed"
            self._change(name, error=outcome)
            self.tell(name, {"slug": outcome.slug, "title": outcome.title, "detail": str(outcome)})
        self.ended.set()

    def tell(self, name: EventName, data: Mapping[str, Any]) -> None:
        """Add an event; only the last preview is kept."""
        if name == "progress":
            self._change(self._state.status, progress=float(data["fraction"]))
        if name == "preview":
            self.events = [event for event in self.events if event.name != "preview"]
        self._count += 1
        self.events.append(Event(str(self._count), name, time.time(), plain_event(data)))
        if len(self.events) > MAX_EVENTS:
            oldest = next((event for event in self.events if event.name == "progress"), self.events[0])
            self.events.remove(oldest)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def next_event(self) -> None:
        """Returns when there is one more."""
        await self._news.wait()

    def _change(self, status: Status, **fields: Any) -> None:
        self._state = replace(self._state, status=status, updated_at=time.time(), **fields)


class Retention:
    """Which ended jobs to keep: for ``ttl`` seconds, and no more than ``max_bytes`` of results (but the newest)."""

    def __init__(self, ttl: float, max_bytes: int) -> None:
        self._ttl, self._max_bytes = ttl, max_bytes
        self._kept: dict[str, tuple[float, int]] = {}
        self._bytes = 0

    def keep(self, job_id: str, size: int) -> None:
        """A job ended just now, with a result of ``size`` bytes."""
        self._kept[job_id] = (time.time(), size)
        self._bytes += size

    def drop(self, job_id: str) -> None:
        """It is kept no more."""
        _, size = self._kept.pop(job_id, (0.0, 0))
        self._bytes -= size

    def surplus(self) -> Iterator[str]:
        """Jobs to drop, oldest first; whoever iterates drops them."""
        while self._kept:
            job_id, (at, _) = next(iter(self._kept.items()))
            too_many = self._bytes > self._max_bytes and len(self._kept) > 1
            if not too_many and time.time() - at < self._ttl:
                return
            yield job_id


def plain_event(data: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: bytes become base64."""
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in data.items()
    }
