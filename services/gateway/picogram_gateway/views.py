# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How jobs look from outside."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from picogram.jobs import JobState, Priority, WorkerInfo
from picogram.jobs.state import Status
from picogram_gateway.kinds import Kind, kind_of
from picogram_gateway.problems import Problem, problem_of

_TIME = "2026-03-01T12:00:00.000Z"


class JobLinks(BaseModel):
    """Paths on this server."""

    self: str = Field(examples=["/v1/jobs/5f0c6f5e6f5b4c3e9d550d6b6c1f7a52"])
    result: str = Field(examples=["/v1/jobs/5f0c6f5e6f5b4c3e9d550d6b6c1f7a52/result"])
    events: str = Field(examples=["/v1/jobs/5f0c6f5e6f5b4c3e9d550d6b6c1f7a52/events"])


class JobView(BaseModel):
    """Where a job is. Times are RFC 3339 in UTC."""

    id: str = Field(examples=["5f0c6f5e6f5b4c3e9d550d6b6c1f7a52"])
    kind: Kind = Field(examples=["encode"])
    status: Status = Field(examples=["running"])
    step: str = Field(examples=["encoder"], description="The step that it waits for or is in.")
    priority: Priority
    progress: float = Field(ge=0, le=1, examples=[0.5], description="Of the present step.")
    attempt: int = Field(ge=0, examples=[1], description="Deliveries of the present step to a worker.")
    created: str = Field(examples=[_TIME])
    updated: str = Field(examples=[_TIME])
    deadline: str | None = Field(examples=[_TIME], description="When it will be given up.")
    error: Problem | None = Field(description="What `result` will answer, for a job that failed.")
    links: JobLinks


def job_view(state: JobState) -> JobView:
    """As ``GET /v1/jobs/{id}`` shows it."""
    path = f"/v1/jobs/{state.id}"
    return JobView(
        id=state.id,
        kind=kind_of(state),
        status=state.status,
        step=state.step,
        priority=state.priority,
        progress=state.progress,
        attempt=state.attempt,
        created=_rfc3339(state.created_at),
        updated=_rfc3339(state.updated_at),
        deadline=None if state.deadline is None else _rfc3339(state.deadline),
        error=problem_of(state.error) if state.error else None,
        links=JobLinks(self=path, result=f"{path}/result", events=f"{path}/events"),
    )


def worker_view(worker: WorkerInfo) -> dict[str, Any]:
    """As ``/v1/models`` shows it."""
    return {
        "name": worker.name,
        "step": worker.step,
        "version": worker.version,
        "started": _rfc3339(worker.started_at),
        "facts": dict(worker.facts),
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
