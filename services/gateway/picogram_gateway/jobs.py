# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked about jobs: where one is, what came out, what happens; and to give it up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from picogram.errors import PicogramError
from picogram.jobs import Event, JobState
from picogram_gateway import openapi
from picogram_gateway.answers import JobView, job_view
from picogram_gateway.exchange import answer, dispatcher_of
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.guards import owner_of
from picogram_gateway.problems import ProblemError
from picogram_gateway.telemetry import set_job

router = APIRouter(prefix="/v1/jobs/{id}", tags=["jobs"])

_EVENT_ID: Final = r"^[0-9A-Za-z-]{0,64}$"
_UNBUFFERED: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
JobId = Annotated[str, Path(alias="id", description="As in `Location`")]


@router.get(
    "", summary="Where a job is", response_model=JobView, responses=openapi.problems(401, 404, 429, 503)
)
async def read_job(request: Request, job_id: JobId) -> JobView:
    """Known until some minutes after its end; jobs of other keys are not."""
    state = await _state(request, job_id)
    if state.status != "done":
        return job_view(state)
    with suppress(TimeoutError):
        return job_view(state, await dispatcher_of(request).broker.result(job_id, 0))
    return job_view(state)


@router.get(
    "/result",
    summary="What came out of a job",
    response_class=Response,
    responses=openapi.job_result() | openapi.problems(401, 404, 409, 410, 413, 422, 429, 500, 503, 504),
)
async def read_result(request: Request, job_id: JobId) -> Response:
    """Exactly what the request would have been answered with, had it waited: bytes and headers, or the problem."""
    state = await _state(request, job_id)
    try:
        result = await dispatcher_of(request).wait(job_id, 0)
    except TimeoutError:
        detail = f"the job is {state.status}; its events tell when it is done"
        headers = {"Retry-After": "1"}
        raise ProblemError(409, "job-not-finished", "Job not finished", detail, headers) from None
    return answer(request, state.kind, result, job_id)


@router.get(
    "/events",
    summary="What happens to a job",
    response_class=Response,
    responses=openapi.event_stream() | openapi.problems(401, 404, 422, 429, 503),
)
async def read_events(
    request: Request,
    job_id: JobId,
    last_event_id: Annotated[
        str, Header(pattern=_EVENT_ID, description="Leave out events up to this one")
    ] = "",
    after: Annotated[
        str, Query(alias="last_event_id", pattern=_EVENT_ID, description="The same, for want of headers")
    ] = "",
) -> StreamingResponse:
    """Server-sent events: `queued`, `running`, `progress`, `preview`, and at last `done`, `failed` or `canceled`.

    The stream ends after the last event. When it ends before, ask again with the `id` of the last event that came.
    """
    await _state(request, job_id)
    dispatcher, settings = dispatcher_of(request), _settings(request)
    events = dispatcher.broker.events(job_id, last_event_id or after)
    stream = event_stream(events, dispatcher.draining, settings.heartbeat_seconds)
    return StreamingResponse(stream, headers=_UNBUFFERED, media_type="text/event-stream")


@router.delete(
    "",
    summary="Give a job up",
    status_code=202,
    response_model=JobView,
    responses=openapi.problems(401, 404, 429, 503),
)
async def cancel_job(request: Request, job_id: JobId) -> JobView:
    """Nothing happens to a job that has ended; a running one ends at its next pause."""
    await _state(request, job_id)
    dispatcher = dispatcher_of(request)
    await dispatcher.broker.cancel(job_id)
    return job_view(await dispatcher.broker.state(job_id))


async def _state(request: Request, job_id: str) -> JobState:
    state = await dispatcher_of(request).owned(job_id, owner_of(request.scope))
    set_job(request.scope, job_id)
    return state


def _settings(request: Request) -> GatewaySettings:
    settings: GatewaySettings = request.app.state.settings
    return settings


async def event_stream(
    events: AsyncIterator[Event], closing: asyncio.Event, heartbeat: float
) -> AsyncIterator[bytes]:
    """Ends with the last event, with ``closing``, or when the job store goes away: readers ask again, elsewhere."""
    closed = asyncio.create_task(closing.wait())
    upcoming = asyncio.create_task(_next(events))
    try:
        while True:
            await asyncio.wait((upcoming, closed), timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if upcoming.done():
                event = upcoming.result()
                if event is None:
                    return
                yield _format(event)
                upcoming = asyncio.create_task(_next(events))
            elif closed.done():
                return
            else:
                yield KEEPALIVE_COMMENT
    finally:
        closed.cancel()
        upcoming.cancel()
        await asyncio.gather(closed, upcoming, return_exceptions=True)


async def _next(events: AsyncIterator[Event]) -> Event | None:
    try:
        return await anext(events, None)
    except PicogramError:
        return None


def _format(event: Event) -> bytes:
    data = json.dumps({"at": round(event.at, 3), **event.data})
    return format_sse_event(data_str=data, event=event.name, id=event.id)
