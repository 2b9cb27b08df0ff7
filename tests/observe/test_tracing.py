# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Traces cross the queue: spans of workers belong to, or link to, those of the requests."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from picogram.errors import UnreadableImage, UsageError
from picogram.jobs import Job, Result
from picogram.observe import tracing
from picogram.observe.log_settings import LogSettings
from picogram.observe.tracing import TracingObserver, current_traceparent

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otel]")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

TRACES = ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"]
PARENTS = [f"00-{trace}-00f067aa0ba902b7-01" for trace in TRACES]
RESULT = Result(b"", "text/plain")


class Traced:
    """An observer, and the spans that it makes."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = TracingObserver(self.provider.get_tracer("test"))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()


def job(trace: str = "", **fields: Any) -> Job:
    return Job("encode", b"", ("encoder:draw",), trace=trace, **fields)


def test_a_batch_of_one_is_a_child_of_the_request(traced: Traced) -> None:
    one = job(PARENTS[0], attempt=2)
    with traced.observer.started("encoder", [one]):
        inside = current_traceparent()
    traced.observer.finished("encoder", one, RESULT, "done")
    (span,) = traced.spans
    assert (span.name, format(span.context.trace_id, "032x")) == ("picogram.encoder", TRACES[0])
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert span.links == ()
    assert inside == f"00-{TRACES[0]}-{span.context.span_id:016x}-01"
    assert dict(span.attributes or {}) == {
        "picogram.step": "encoder",
        "picogram.task": "draw",
        "picogram.job": one.id,
        "picogram.attempt": 2,
        "messaging.batch.message_count": 1,
    }


def test_a_batch_of_more_is_a_new_trace_with_links_to_all(traced: Traced) -> None:
    jobs = [job(PARENTS[0]), job(), job(PARENTS[1])]
    with traced.observer.started("encoder", jobs):
        pass
    for each in jobs:
        assert traced.spans == []
        traced.observer.finished("encoder", each, RESULT, "done")
    (span,) = traced.spans
    assert span.parent is None
    assert format(span.context.trace_id, "032x") not in TRACES
    assert [format(link.context.trace_id, "032x") for link in span.links] == TRACES
    assert [(link.attributes or {})["picogram.job"] for link in span.links] == [jobs[0].id, jobs[2].id]
    assert [(event.attributes or {})["picogram.job"] for event in span.events] == [each.id for each in jobs]


def test_the_span_ends_with_the_handler_and_not_with_the_report(traced: Traced) -> None:
    one = job()
    with traced.observer.started("encoder", [one]):
        pass
    threading.Event().wait(0.05)
    traced.observer.finished("encoder", one, RESULT, "done")
    (span,) = traced.spans
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time < 40_000_000


def test_unexpected_errors_mark_the_span_and_typed_ones_do_not(traced: Traced) -> None:
    typed, strange = job(), job()
    for each, error, ending in (
        (typed, UnreadableImage("no image"), "failed"),
        (strange, ZeroDivisionError("secret"), "error"),
    ):
        with traced.observer.started("encoder", [each]):
            pass
        traced.observer.finished("encoder", each, error, ending)  # type: ignore[arg-type]
    first, second = traced.spans
    assert first.status.status_code is StatusCode.UNSET
    assert (first.events[0].attributes or {})["error.type"] == "unreadable-image"
    assert second.status.status_code is StatusCode.ERROR
    assert [event.name for event in second.events] == ["job finished", "exception"]


@pytest.mark.parametrize("trace", ["", "nonsense", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_malformed_traceparents_do_no_harm(traced: Traced, trace: str) -> None:
    one = job(trace)
    with traced.observer.started("encoder", [one]):
        pass
    traced.observer.finished("encoder", one, RESULT, "done")
    assert traced.spans[0].parent is None


def test_no_span_no_traceparent() -> None:
    assert current_traceparent() == ""


def test_without_an_endpoint_nothing_is_installed() -> None:
    tracing.install("picogram-test", LogSettings())()
    assert current_traceparent() == ""


def test_an_endpoint_without_the_sdk_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError, match=r"PICOGRAM_OTLP_ENDPOINT needs .*picogram-codec\[otel\]"):
        tracing.install("picogram-test", LogSettings(otlp_endpoint="http://127.0.0.1:4318"))


_PROGRAM = """
import sys
from picogram.jobs import Job, Result
from picogram.observe.log_settings import LogSettings
from picogram.observe import tracing
flush = tracing.install("picogram-encoder", LogSettings(otlp_endpoint=sys.argv[1]))
job = Job("encode", b"", ("encoder",), trace=sys.argv[2])
observer = tracing.TracingObserver()
with observer.started("encoder", [job]):
    pass
observer.finished("encoder", job, Result(b"", "text/plain"), "done")
flush()
"""


def test_a_part_of_the_traces_can_be_recorded_and_a_callers_own_are_all() -> None:
    """In a process of its own, for a provider is installed once and for all."""
    program = (
        "from opentelemetry import trace\n"
        "from picogram.observe import tracing\n"
        "from picogram.observe.log_settings import LogSettings\n"
        "tracing.install('test', LogSettings(otlp_endpoint='http://127.0.0.1:1', trace_ratio=0.0))\n"
        "for parent in ('', 'PARENT'):\n"
        "    print(trace.get_tracer('t').start_span('s', tracing.context_of(parent)).is_recording())\n"
        "import os; os.sys.stdout.flush(); os._exit(0)\n"
    ).replace("PARENT", PARENTS[0])
    told = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
    assert told.stdout.split() == [b"False", b"True"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces"])
def test_spans_reach_the_collector(suffix: str) -> None:
    """In a process of its own, for a provider is installed once and for all."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got: list[tuple[str, ExportTraceServiceRequest]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}{suffix}"
        subprocess.run([sys.executable, "-c", _PROGRAM, endpoint, PARENTS[0]], check=True, timeout=60)
        server.shutdown()
    ((path, request),) = got
    assert path == "/v1/traces"
    (spans,) = request.resource_spans
    facts = {each.key: each.value.string_value for each in spans.resource.attributes}
    assert facts["service.name"] == "picogram-encoder"
    (span,) = spans.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("picogram.encoder", TRACES[0])
