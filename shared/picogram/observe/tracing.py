# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry traces that cross the queue: ``Job.trace`` (a W3C traceparent) goes in, spans come out.

    request ── gateway span ── Job.trace ──┬── batch of one:  span picogram.encoder, child of the gateway's
    request ── gateway span ── Job.trace ──┴── batch of more: span picogram.encoder, a new trace with links to all

Spans are made through the API alone, which costs nothing until ``install`` puts the SDK and an exporter behind it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from picogram.errors import PicogramError, UsageError
from picogram.jobs.job import Job, Outcome
from picogram.jobs.observer import Ending, Observer
from picogram.observe.log_settings import LogSettings
from picogram.version import VERSION

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACES = "/v1/traces"
_EXPORT_SECONDS = 5.0
"""How long a collector may take, also when the process ends."""


def install(service: str, settings: LogSettings) -> Callable[[], None]:
    """Export the spans of this process to ``otlp_endpoint``, if that is set; call what is returned at the end.

    ``service``: as the traces shall name it. Raises UsageError where the SDK is not installed.
    """
    if settings.otlp_endpoint is None:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ModuleNotFoundError as error:
        raise UsageError(
            f'PICOGRAM_OTLP_ENDPOINT needs the module {error.name}: pip install "picogram-codec[otel]"'
        ) from error
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": service,
                "service.version": VERSION,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        ),
        # None: as the SDK's own variables say.
        sampler=None if settings.trace_ratio == 1.0 else ParentBased(TraceIdRatioBased(settings.trace_ratio)),
        shutdown_on_exit=False,
    )
    endpoint = settings.otlp_endpoint.rstrip("/").removesuffix(_TRACES) + _TRACES
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS))
    )
    trace.set_tracer_provider(provider)
    return provider.shutdown


def current_traceparent() -> str:
    """The traceparent of the span that is current here, for ``Job.trace``; empty where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def context_of(traceparent: str) -> Context:
    """The context in which a span becomes the child of the traceparent's; an empty or malformed one: of none."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


@dataclass
class _Batch:
    """A span whose handler came back, and that ends when the last of its jobs is reported."""

    span: Span
    jobs: int
    ended_at: int = 0


class TracingObserver(Observer):
    """A span for each batch; how its jobs ended are its events."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """``tracer``: by default that of the provider that ``install`` sets, now or later."""
        self._tracer = tracer or trace.get_tracer("picogram", VERSION)
        self._batches: dict[str, _Batch] = {}

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        batch = _Batch(self._start(step, jobs), len(jobs))
        # Before the handler, for it is in another thread that jobs are reported.
        self._batches |= {job.id: batch for job in jobs}
        token = context.attach(trace.set_span_in_context(batch.span, Context()))
        try:
            yield
        finally:
            context.detach(token)
            batch.ended_at = time.time_ns()

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        batch = self._batches.pop(job.id, None)
        if batch is None:
            return
        facts = {"picogram.job": job.id, "picogram.ending": ending}
        if isinstance(outcome, PicogramError):
            facts["error.type"] = outcome.slug
        batch.span.add_event("job finished", facts)
        if ending == "error" and isinstance(outcome, Exception):
            batch.span.record_exception(outcome, {"picogram.job": job.id})
            batch.span.set_status(Status(StatusCode.ERROR, f"unexpected {type(outcome).__name__}"))
        batch.jobs -= 1
        if not batch.jobs:
            batch.span.end(batch.ended_at)

    def _start(self, step: str, jobs: Sequence[Job]) -> Span:
        facts: dict[str, str | int] = {"picogram.step": step, "messaging.batch.message_count": len(jobs)}
        if jobs[0].task:
            facts["picogram.task"] = jobs[0].task
        parent, links = Context(), []
        if len(jobs) == 1:
            parent = context_of(jobs[0].trace)
            facts |= {"picogram.job": jobs[0].id, "picogram.attempt": jobs[0].attempt}
        else:
            origins = [
                (job.id, trace.get_current_span(context_of(job.trace)).get_span_context()) for job in jobs
            ]
            links = [Link(origin, {"picogram.job": name}) for name, origin in origins if origin.is_valid]
        return self._tracer.start_span(f"picogram.{step}", parent, SpanKind.CONSUMER, facts, links)
