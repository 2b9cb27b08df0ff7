# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""An order goes in, an answer comes out: the result if it is there in time, else word of the job.

submit ── wait ──┬── done                  the result, or its problem
                 ├── `Prefer: wait=` over  202 with the job
                 └── client gone           canceled; not with an idempotency key, for that client will be back
"""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from picogram.errors import PicogramError
from picogram.jobs import JobState, Result
from picogram.observe.tracing import current_traceparent
from picogram_gateway.answers import render
from picogram_gateway.auth import owner_of
from picogram_gateway.dispatch import Dispatcher
from picogram_gateway.kinds import Kind
from picogram_gateway.metrics import GatewayMetrics
from picogram_gateway.orders import Order
from picogram_gateway.prefer import Preference
from picogram_gateway.problems import ProblemError
from picogram_gateway.request_log import set_job
from picogram_gateway.views import job_view
from picogram_gateway.wishes import Wishes


async def exchange(request: Request, wishes: Wishes, order: Order) -> Response:
    """Have it done. Raises the job's error, or QueueFull, JobConflict, BrokerUnavailable, or a 499 problem, unread."""
    dispatcher = dispatcher_of(request)
    job = dispatcher.job(
        order.patience,
        kind=order.kind,
        payload=order.payload,
        route=order.route,
        options=order.options,
        compatibility=str(order.options.get("profile", "")),
        cost=order.cost,
        priority=wishes.priority,
        owner=owner_of(request.scope),
        key=wishes.key,
        fingerprint=await asyncio.to_thread(lambda: order.fingerprint) if wishes.key else "",
        trace=current_traceparent(),
    )
    job_id = await dispatcher.broker.submit(job)
    set_job(request.scope, job_id)
    if wishes.prefer.seconds == 0 and job_id == job.id:
        return _accepted(await dispatcher.broker.state(job_id), wishes.prefer)
    try:
        result = await _result(request, dispatcher, job_id, wishes)
    except TimeoutError:
        return _accepted(await dispatcher.broker.state(job_id), wishes.prefer)
    response = answer(request, order.kind, result)
    if wishes.prefer.wait is not None:
        response.headers["Preference-Applied"] = f"wait={wishes.prefer.wait}"
    return response


def answer(request: Request, kind: Kind, result: Result) -> Response:
    """The same for a job that was waited for and one that was fetched later."""
    metrics: GatewayMetrics = request.app.state.metrics
    if kind == "encode":
        metrics.observe_file(result.payload)
    return render(kind, result)


def dispatcher_of(request: Request) -> Dispatcher:
    """The app's."""
    dispatcher: Dispatcher = request.app.state.dispatcher
    return dispatcher


async def _result(request: Request, dispatcher: Dispatcher, job_id: str, wishes: Wishes) -> Result:
    working = asyncio.create_task(dispatcher.wait(job_id, wishes.prefer.seconds))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ProblemError(499, "client-gone", "Client gone", "the client closed the connection")
        result = working.result()
    except (PicogramError, TimeoutError) as error:
        if isinstance(error, PicogramError):
            _forget(dispatcher, job_id, wishes)
        raise
    except (ProblemError, asyncio.CancelledError):
        if not wishes.key:
            dispatcher.later(dispatcher.broker.cancel(job_id))
        raise
    finally:
        dispatcher.drop(working, leaving)
    _forget(dispatcher, job_id, wishes)
    return result


def _forget(dispatcher: Dispatcher, job_id: str, wishes: Wishes) -> None:
    """An answer that nobody can ask for again need not be kept."""
    if not wishes.key and not wishes.prefer:
        dispatcher.later(dispatcher.broker.forget(job_id))


def _accepted(state: JobState, prefer: Preference) -> Response:
    headers = {
        "Location": f"/v1/jobs/{state.id}",
        "Preference-Applied": str(prefer),
        "Retry-After": "1",
    }
    return JSONResponse(job_view(state).model_dump(mode="json"), 202, headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
