# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What is told about requests: a span, a log line and Prometheus metrics of each.

    Tracing      one OpenTelemetry span per request, below the caller's ``traceparent``; jobs take theirs along in
                 ``Job.trace``. Without an SDK no span is recorded, and the caller's trace still travels with the job
    RequestLog   one log line per request; response, problem and lines share the ids of request, job and trace
    Metrics      counts, on a port of their own so that they need no key and no visitor sees them

picogram_requests_total{route,method,code}    picogram_request_seconds{route}    picogram_requests_in_flight
picogram_bitstream_bytes{profile}             picogram_rate_limited_total
picogram_queue_depth{step,priority}           read from the broker when somebody looks
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars

from picogram.bitstream import parse
from picogram.errors import PicogramError, UsageError
from picogram.jobs import PRIORITIES, Broker
from picogram.observe.logs import trace_id
from picogram.observe.metrics import new_registry
from picogram.observe.tracing import context_of, current_traceparent
from picogram_gateway.guards import PROBES, owner_of

logger = structlog.get_logger("picogram.gateway")
_tracer = trace.get_tracer("picogram.gateway")

STEPS: Final = ("encoder", "decoder", "lmm", "inspector")
_METHODS: Final = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BYTES: Final = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400)
_POLLED: Final = "/v1/jobs/"
_SCRAPE_TIMEOUT: Final = 3.0


class GatewayMetrics:
    """What is counted, in a registry that the workers within this process may share."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self.requests = Counter(
            "picogram_requests", "Requests answered", ["route", "method", "code"], registry=registry
        )
        self.seconds = Histogram(
            "picogram_request_seconds",
            "Time from a request's head to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("picogram_requests_in_flight", "Requests under way", registry=registry)
        self.bitstream_bytes = Histogram(
            "picogram_bitstream_bytes",
            "Size of .pico files in answers",
            ["profile"],
            buckets=_BYTES,
            registry=registry,
        )
        self.rate_limited = Counter(
            "picogram_rate_limited", "Requests refused for coming too often", registry=registry
        )

    def observe_file(self, data: bytes) -> None:
        """A .pico file that goes out."""
        with suppress(PicogramError):  # whatever it is, it is the answer
            profile = parse(data).header.profile.name.lower()
            self.bitstream_bytes.labels(profile).observe(len(data))


class Metrics:
    """Counts every request, by the path of its route, so that hostile paths make no new series."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, code = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, watched)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.requests.labels(route, method, code).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


class QueueDepth(Collector):
    """Asks the broker, which belongs to ``loop``, from a scraper's thread; what it cannot learn it leaves out."""

    def __init__(self, broker: Broker, loop: asyncio.AbstractEventLoop) -> None:
        self._broker, self._loop = broker, loop

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The name, for the registry; nobody is asked."""
        yield self._family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The depths as of now."""
        family = self._family()
        for labels, depth in self._ask():
            family.add_metric(labels, depth)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("picogram_queue_depth", "Jobs that wait or run", labels=["step", "priority"])

    def _ask(self) -> list[tuple[list[str], int]]:
        future = asyncio.run_coroutine_threadsafe(self._depths(), self._loop)
        try:
            return future.result(_SCRAPE_TIMEOUT)
        except Exception:  # a scrape without it is better than none
            future.cancel()
            return []

    async def _depths(self) -> list[tuple[list[str], int]]:
        return [
            ([step, priority], await self._broker.depth(step, priority))
            for step in STEPS
            for priority in PRIORITIES
        ]


class MetricsServer:
    """Serves the registry from a thread until closed."""

    def __init__(self, metrics: GatewayMetrics, host: str, port: int) -> None:
        """Raises UsageError where it cannot listen there."""
        try:
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port} for metrics: {error}") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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

        with bound_contextvars(request=request_id, **_trace_field()):
            try:
                await self._app(scope, receive, watched)
            finally:
                if status >= 400 or scope["path"] not in PROBES:
                    logger.info(
                        "request",
                        **_who_fields(scope),
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
    trace.get_current_span().set_attribute("picogram.job", job_id)


def _trace_field() -> dict[str, str]:
    trace_hex = trace_id(current_traceparent())
    return {"trace": trace_hex} if trace_hex else {}


def _who_fields(scope: Scope) -> dict[str, str]:
    job, owner = scope.get("picogram.job"), owner_of(scope)
    return ({"job": job} if job else {}) | ({"owner": owner} if owner else {})


class Tracing:
    """Opens the span of a request. Probes have none, nor has what is asked again and again: where a job is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        parent = context_of(Headers(scope=scope).get("traceparent", ""))
        if scope["method"] in ("GET", "HEAD") and scope["path"].startswith(_POLLED):
            token = context.attach(parent)
            try:
                await self._app(scope, receive, send)
            finally:
                context.detach(token)
            return
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
