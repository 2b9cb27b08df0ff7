# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One OpenTelemetry span per request, below the caller's ``traceparent``; jobs take theirs along in ``Job.trace``.

Without an SDK installed no span is recorded, and the caller's trace still travels with the job.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picogram.observe.tracing import context_of
from picogram_gateway.auth import PROBES

_tracer = trace.get_tracer("picogram.gateway")


class Tracing:
    """Opens the span of a request; probes have none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        parent = context_of(Headers(scope=scope).get("traceparent", ""))
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with _tracer.start_as_current_span(
            scope["method"], parent, SpanKind.SERVER, attributes, record_exception=False
        ) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            try:
                await self._app(scope, receive, watched)
            finally:
                if route := getattr(scope.get("route"), "path", ""):
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attribute("http.route", route)


def set_job(job_id: str) -> None:
    """Note the job that a request led to."""
    trace.get_current_span().set_attribute("picogram.job", job_id)
