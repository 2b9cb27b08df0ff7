# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a job while it is under way and after: its state, and the events that led there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from picogram.errors import JobFailed, PicogramError
from picogram.jobs.job import Priority

Status = Literal["queued", "running", "done", "failed", "canceled"]
FINAL: tuple[Status, ...] = ("done", "failed", "canceled")
EventName = Literal["queued", "running", "progress", "preview", "done", "failed", "canceled"]


@dataclass(frozen=True)
class JobState:
    """Where a job is.

    ``step`` is the element of its route that it waits for or is in; ``attempt`` counts deliveries of it.
    """

    id: str
    kind: str
    status: Status
    step: str
    priority: Priority
    owner: str
    created_at: float
    updated_at: float
    deadline: float | None
    attempt: int = 0
    progress: float = 0.0
    error: PicogramError | None = None

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. ``id`` is opaque, and what ``Broker.events(after=)`` takes.

    ``data``: queued and running have ``step``; progress ``step``, ``fraction`` and what the handler adds; preview
    ``media_type`` and ``data`` (base64); failed ``slug``, ``title`` and ``detail``.
    """

    id: str
    name: EventName
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether it is a job's last."""
        return self.name in FINAL


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself, at start and with every sign of life."""

    name: str
    step: str
    version: str
    started_at: float
    facts: Mapping[str, Any] = field(default_factory=dict)


def as_failure(error: Exception) -> PicogramError:
    """What the caller is told: our own errors as they are, any other as JobFailed, for its text may hold secrets."""
    if isinstance(error, PicogramError):
        return error
    failure = JobFailed("an unexpected error; the worker's log has the details")
    failure.__cause__ = error
    return failure
