# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How results, jobs and workers look from outside: bytes with headers that hold the short facts; JSON that holds all."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from fastapi import Response
from pydantic import BaseModel, Field

from picogram.bitstream.container import OPTIONAL
from picogram.jobs import JobState, Priority, Result, WorkerInfo
from picogram.jobs.state import Status
from picogram.pipeline.handovers import JobReport
from picogram.results import Encoded
from picogram.semantics.description import printable
from picogram_gateway.edges import on_server
from picogram_gateway.problems import Problem, problem_of

Kind = Literal["encode", "decode", "inspect", "describe", "reference"]
DRAWING_HEADERS: Final = ("stages", "steps", "guidance", "seed", "model")


def render(kind: str, result: Result, job_id: str) -> Response:
    """The answer to a request of that kind: the result's bytes, short facts, warnings, and where the time went.

    Words may be too long for headers: a link leads to the job, which holds them.
    """
    facts = facts_of(result)
    headers = _HEADERS[kind](result, facts) if kind in _HEADERS else {}
    if has_words(result):
        headers["Link"] = f'<{on_server(f"/v1/jobs/{job_id}")}>; rel="describedby"; type="application/json"'
    headers["Server-Timing"] = ", ".join(f"{n};dur={1000 * s:.1f}" for n, s in result.timings.items())
    response = Response(result.payload, headers=headers, media_type=result.media_type)
    for warning in result.warnings:
        response.headers.append("X-Picogram-Warning", _ascii(warning))
    return response


def facts_of(result: Result) -> dict[str, Any]:
    """What the last step reports of the payload."""
    report = JobReport.of(result.metadata)
    return dict(report.result) if report else {}


def has_words(result: Result) -> bool:
    """Whether words belong to it: in the file, or heard by its encoder."""
    facts = facts_of(result)
    return bool(facts.get("description") or facts.get("heard"))


def _of_file(result: Result, facts: dict[str, Any]) -> dict[str, str]:
    """A fresh .pico file, and where its bytes went: header (checksums included) and sections add up to all of them."""
    encoded = Encoded(result.payload)
    sizes = dict.fromkeys(("header", "latent", *OPTIONAL), 0) | encoded.sections
    return {
        "ETag": f'"{hashlib.sha256(result.payload).hexdigest()}"',
        **_size(len(result.payload), encoded.width, encoded.height),
        **{f"X-Picogram-{name.title()}-Bytes": str(size) for name, size in sizes.items()},
    }


def _of_picture(result: Result, facts: dict[str, Any]) -> dict[str, str]:
    """How large a picture is, and how it was drawn."""
    told = {name: facts[name] for name in ("width", "height")} | {
        name: value for name in DRAWING_HEADERS if (value := facts["drawing"].get(name)) is not None
    }
    return {"Vary": "Accept", **{f"X-Picogram-{name.title()}": str(value) for name, value in told.items()}}


def _of_reference(result: Result, facts: dict[str, Any]) -> dict[str, str]:
    return _size(len(result.payload), facts["width"], facts["height"])


_HEADERS: Final = {"encode": _of_file, "decode": _of_picture, "reference": _of_reference}


def _size(size: int, width: int, height: int) -> dict[str, str]:
    return {
        "X-Picogram-Bytes": str(size),
        "X-Picogram-Bpp": f"{8 * size / (width * height):.6f}",
        "X-Picogram-Width": str(width),
        "X-Picogram-Height": str(height),
    }


def _ascii(text: str) -> str:
    """One line that any HTTP client can read."""
    return printable(text).encode("ascii", "backslashreplace").decode()


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
    result: dict[str, Any] | None = Field(
        description="Of a job that is done: what its headers say and what is too long for them, such as the words.",
        examples=[
            {"profile": "stc", "bytes": 683, "description": {"caption": "A wet dog runs.", "objects": []}}
        ],
    )
    links: JobLinks


def job_view(state: JobState, result: Result | None = None) -> JobView:
    """As ``GET /v1/jobs/{id}`` shows it; ``result``: of a job that is done."""
    path = on_server(f"/v1/jobs/{state.id}")
    return JobView(
        id=state.id,
        kind=cast(Kind, state.kind),
        status=state.status,
        step=state.step,
        priority=state.priority,
        progress=state.progress,
        attempt=state.attempt,
        created=_rfc3339(state.created_at),
        updated=_rfc3339(state.updated_at),
        deadline=None if state.deadline is None else _rfc3339(state.deadline),
        error=problem_of(state.error) if state.error else None,
        result=None if result is None else _result_view(result),
        links=JobLinks(self=path, result=f"{path}/result", events=f"{path}/events"),
    )


def _result_view(result: Result) -> dict[str, Any]:
    return {
        "media_type": result.media_type,
        **facts_of(result),
        "warnings": list(result.warnings),
        "timings": dict(result.timings),
    }


def worker_view(worker: WorkerInfo) -> dict[str, Any]:
    """As ``/v1/models`` shows it: hosts and processes are nobody's business."""
    return {
        "name": f"{worker.step}-{hashlib.sha256(worker.name.encode()).hexdigest()[:8]}",
        "step": worker.step,
        "version": worker.version,
        "started": _rfc3339(worker.started_at),
        "facts": {name: fact for name, fact in worker.facts.items() if name not in ("host", "process")},
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
