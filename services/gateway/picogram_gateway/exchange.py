# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From a request to its answer: an order goes in, the result comes out if it is there in time, else word of the job.

body ── Order       what it is, how large, which workers it visits: from its header alone, so that a bomb gets no further
Order ── submit ── wait ──┬── done                  the result, or its problem
                          ├── `Prefer: wait=` over  202 with the job
                          └── client gone           canceled; not with an idempotency key, for that client will be back
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from picogram.bitstream import parse
from picogram.errors import PicogramError
from picogram.images import read_size
from picogram.jobs import JobState, Result
from picogram.observe.tracing import current_traceparent
from picogram.profiles.registry import profile_named
from picogram.profiles.spec import Route, decode_route, inspect_route
from picogram_gateway.answers import has_words, job_view, render
from picogram_gateway.dispatch import Dispatcher
from picogram_gateway.edges import on_server
from picogram_gateway.guards import owner_of
from picogram_gateway.problems import ProblemError
from picogram_gateway.requests import JobHeaders, Preference
from picogram_gateway.telemetry import GatewayMetrics, set_job


async def exchange(request: Request, wishes: JobHeaders, order: Order) -> Response:
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
    response = answer(request, order.kind, result, job_id)
    if wishes.prefer.wait is not None:
        response.headers["Preference-Applied"] = f"wait={wishes.prefer.wait}"
    return response


def answer(request: Request, kind: str, result: Result, job_id: str) -> Response:
    """The same for a job that was waited for and one that was fetched later."""
    metrics: GatewayMetrics = request.app.state.metrics
    if kind == "encode":
        metrics.observe_file(result.payload)
    return render(kind, result, job_id)


def dispatcher_of(request: Request) -> Dispatcher:
    """The app's."""
    dispatcher: Dispatcher = request.app.state.dispatcher
    return dispatcher


async def _result(request: Request, dispatcher: Dispatcher, job_id: str, wishes: JobHeaders) -> Result:
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
    if not has_words(result):
        _forget(dispatcher, job_id, wishes)
    return result


def _forget(dispatcher: Dispatcher, job_id: str, wishes: JobHeaders) -> None:
    """An answer that nobody can ask for again need not be kept."""
    if not wishes.key and not wishes.prefer:
        dispatcher.later(dispatcher.broker.forget(job_id))


def _accepted(state: JobState, prefer: Preference) -> Response:
    headers = {
        "Location": on_server(f"/v1/jobs/{state.id}"),
        "Preference-Applied": str(prefer),
        "Retry-After": "1",
    }
    return JSONResponse(job_view(state).model_dump(mode="json"), 202, headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


DESCRIBE: Final[Route] = ("lmm:describe",)
REFERENCE: Final[Route] = ("inspector:reference",)
_COSTS: Final = (1, 16, 64)
"""Of an encode, by effort: how many times the work of one that only rounds."""
_PATIENCE: Final = (1, 2, 4)
_SMALL_BYTES: Final = 16 * 1024
"""A file of that size is parsed in less time than a thread takes to begin."""


@dataclass(frozen=True)
class Order:
    """What to do. ``cost`` is in pixels; ``patience``: by how much a job may take longer than others."""

    kind: str
    payload: bytes
    options: Mapping[str, Any] = field(default_factory=dict)
    route: Route = ()
    cost: int = 1
    patience: int = 1

    @property
    def fingerprint(self) -> str:
        """What another request with the same idempotency key has to equal: SHA-256 over kind, options and payload."""
        options = json.dumps(self.options, sort_keys=True, separators=(",", ":"))
        head = f"{self.kind}\n{options}\n".encode()
        return hashlib.sha256(head + hashlib.sha256(self.payload).digest()).hexdigest()


async def order_for_image(kind: str, image: bytes, **options: Any) -> Order:
    """Encode, describe or compare. Raises UnreadableImage, UnsupportedImage or ImageTooLarge."""
    width, height = await asyncio.to_thread(read_size, image)
    effort = options.get("effort", 0)
    cost = width * height * _COSTS[effort]
    return Order(kind, image, options, _image_route(kind, options), cost, _PATIENCE[effort])


async def order_for_file(kind: str, data: bytes, **options: Any) -> Order:
    """Decode or inspect. Raises a BitstreamError."""
    file = parse(data) if len(data) <= _SMALL_BYTES else await asyncio.to_thread(parse, data)
    if kind == "inspect":
        return Order(kind, data, options, inspect_route(file))
    return Order(kind, data, options, decode_route(file), file.header.width * file.header.height)


def _image_route(kind: str, options: Mapping[str, Any]) -> Route:
    if kind == "encode":
        return profile_named(options["profile"]).encode_route(options["caption"], options["focus"])
    return DESCRIBE if kind == "describe" else REFERENCE
