# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One log line per request, and ids that the response, the problem and every line share: of request, job and trace."""

from __future__ import annotations

import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars

from picogram.observe.logs import trace_id
from picogram.observe.tracing import current_traceparent
from picogram_gateway import tracing
from picogram_gateway.auth import PROBES, owner_of

logger = structlog.get_logger("picogram.gateway")


class RequestLog:
    """Logs method, path, status, bytes sent and seconds; successful probes stay silent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["picogram.request_id"] = f"urn:uuid:{uuid.uuid4()}"
        started, status, sent = time.perf_counter(), 500, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if job := scope.get("picogram.job"):
                    headers["X-Picogram-Job"] = job
            sent += len(message.get("body", b""))
            await send(message)

        with bound_contextvars(request=request_id, **_trace()):
            try:
                await self._app(scope, receive, watched)
            finally:
                if status >= 400 or scope["path"] not in PROBES:
                    logger.info(
                        "request",
                        **_who(scope),
                        method=scope["method"],
                        path=scope["path"],
                        status=status,
                        bytes=sent,
                        seconds=round(time.perf_counter() - started, 4),
                    )


def set_job(scope: Scope, job_id: str) -> None:
    """From now on the job is in the response's headers, in every log line of this request and in its span."""
    scope["picogram.job"] = job_id
    bind_contextvars(job=job_id)
    tracing.set_job(job_id)


def _trace() -> dict[str, str]:
    trace = trace_id(current_traceparent())
    return {"trace": trace} if trace else {}


def _who(scope: Scope) -> dict[str, str]:
    job, owner = scope.get("picogram.job"), owner_of(scope)
    return ({"job": job} if job else {}) | ({"owner": owner} if owner else {})
