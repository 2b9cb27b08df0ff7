# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the gateway lets others see: metrics on a port of their own, traces that jobs take along, and log lines."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx2
import pytest
import structlog
from gateway_apps import Gate, check_problem, image, make_app, post_and_leave, running
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import generate_latest

from picogram.errors import UsageError
from picogram_gateway import telemetry
from picogram_gateway.telemetry import GatewayMetrics, MetricsServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


async def scrape(app: Any) -> dict[str, float]:
    """Samples by name with labels, taken in a thread, as a scraper would."""
    text = (await asyncio.to_thread(generate_latest, app.state.metrics.registry)).decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_requests_are_counted_by_route() -> None:
    app = make_app(rate_limit="6/day")
    async with running(app) as client:
        await client.post("/v1/encode", content=image())
        await client.post("/v1/encode", content=b"hello")
        await client.get("/v1/jobs/a")
        await client.get("/v1/jobs/b/result")
        await client.get("/nowhere/1")
        await client.request("BREW", "/nowhere/2")
        check_problem(await client.get("/v1/models"), 429, "rate-limited")
        seen = await scrape(app)
    counted = {
        name.removeprefix("picogram_requests_total"): value
        for name, value in seen.items()
        if name.startswith("picogram_requests_total")
    }
    assert counted == {
        '{code="200",method="POST",route="/v1/encode"}': 1,
        '{code="422",method="POST",route="/v1/encode"}': 1,
        '{code="404",method="GET",route="/v1/jobs/{id}"}': 1,
        '{code="404",method="GET",route="/v1/jobs/{id}/result"}': 1,
        '{code="404",method="GET",route="none"}': 1,
        '{code="404",method="other",route="none"}': 1,
        '{code="429",method="GET",route="none"}': 1,
    }
    assert seen['picogram_request_seconds_count{route="/v1/encode"}'] == 2
    assert seen["picogram_rate_limited_total"] == 1
    assert seen["picogram_requests_in_flight"] == 0
    assert seen['picogram_bitstream_bytes_count{profile="base"}'] == 1
    assert seen['picogram_jobs_total{outcome="done",step="encoder"}'] == 1


async def test_depth_and_requests_under_way_are_as_of_now() -> None:
    gate = Gate()
    app = make_app(gate, max_batch=1)
    high = {"prefer": "respond-async", "x-picogram-priority": "high"}
    async with running(app) as client:
        waiting = asyncio.create_task(client.post("/v1/encode", content=image()))
        await gate.busy.wait()
        for _ in range(2):
            await client.post("/v1/encode", content=image(), headers=high)
        seen = await scrape(app)
        assert seen["picogram_requests_in_flight"] == 1
        assert seen['picogram_queue_depth{priority="normal",step="encoder"}'] == 1
        assert seen['picogram_queue_depth{priority="high",step="encoder"}'] == 2
        assert seen['picogram_queue_depth{priority="high",step="lmm"}'] == 0
        gate.gone.set()
        await waiting


async def test_depth_is_left_out_where_the_store_is_away() -> None:
    app = make_app(redis_url="redis://127.0.0.1:1/0")
    async with running(app):
        seen = await scrape(app)
    assert "picogram_requests_in_flight" in seen
    assert not [name for name in seen if name.startswith("picogram_queue_depth")]


async def test_metrics_have_a_port_of_their_own_and_are_not_on_the_other() -> None:
    app = make_app(api_keys="ann:" + 64 * "0", metrics_port=0)
    server = MetricsServer(app.state.metrics, "127.0.0.1", 0)
    try:
        text = await asyncio.to_thread(lambda: httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text)
    finally:
        await asyncio.to_thread(server.close)
    assert "picogram_requests_in_flight 0.0" in text
    async with running(app) as client:
        check_problem(await client.get("/metrics"), 401, "unauthorized")


def test_a_port_that_is_taken_is_the_users_affair() -> None:
    first = MetricsServer(GatewayMetrics(), "127.0.0.1", 0)
    try:
        with pytest.raises(UsageError, match="cannot listen"):
            MetricsServer(GatewayMetrics(), "127.0.0.1", first.port)
    finally:
        first.close()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the gateway's tracer exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    return exporter


async def test_a_request_is_a_span_below_its_callers_and_its_job_goes_on_from_there(
    spans: InMemorySpanExporter,
) -> None:
    gate = Gate()
    gate.gone.set()
    async with running(make_app(gate)) as client:
        response = await client.post("/v1/encode", content=image(), headers=CALLER)
        await client.get("/livez")
    [span] = spans.get_finished_spans()
    assert span.name == "POST /v1/encode"
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes is not None
    assert span.attributes["http.route"] == "/v1/encode"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["picogram.job"] == response.headers["x-picogram-job"]
    assert gate.jobs[0].trace == f"00-{TRACE}-{span.context.span_id:016x}-01"


async def test_looks_at_a_job_are_no_spans_and_keep_the_callers_trace(spans: InMemorySpanExporter) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with running(make_app()) as client:
            answer = await client.post("/v1/encode", content=image(), headers={"prefer": "respond-async"})
            for path in ("", "/result", "/events"):
                await client.get(answer.headers["location"] + path, headers=CALLER)
            await client.delete(answer.headers["location"])
    assert [span.name for span in spans.get_finished_spans()] == ["POST /v1/encode", "DELETE /v1/jobs/{id}"]
    polls = [line for line in lines if line.get("method") == "GET"]
    assert [line["trace"] for line in polls] == [TRACE] * 3


def test_the_framework_has_no_spans_of_its_own() -> None:
    assert not make_app()._native_telemetry.enabled()


async def test_only_faults_of_ours_are_errors_of_a_span(spans: InMemorySpanExporter) -> None:
    async with running(make_app()) as client:
        await client.post("/v1/encode", content=b"hello")
        await client.post("/v1/encode", content=image(b"bug"))
    codes = [span.status.status_code for span in spans.get_finished_spans()]
    assert codes == [StatusCode.UNSET, StatusCode.ERROR]


async def test_without_an_sdk_the_callers_trace_still_travels() -> None:
    gate = Gate()
    gate.gone.set()
    async with running(make_app(gate)) as client:
        await client.post("/v1/encode", content=image(), headers=CALLER)
        await client.post("/v1/encode", content=image())
        await client.post("/v1/encode", content=image(), headers={"traceparent": "nonsense"})
    assert [job.trace for job in gate.jobs] == [CALLER["traceparent"], "", ""]


async def test_a_line_per_request_names_job_trace_and_owner() -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with running(make_app()) as client:
            response = await client.post("/v1/encode", content=image(), headers=CALLER)
            await client.get("/livez")
            problem = (await client.get("/v1/jobs/x")).json()
    first, second = [line for line in lines if line["event"] == "request"]
    assert first["job"] == response.headers["x-picogram-job"]
    assert first["trace"] == TRACE
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/encode", 200)
    assert first["bytes"] == len(response.content)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", first["request"])
    assert (second["request"], second["status"]) == (problem["instance"], 404)
    assert "trace" not in second


async def test_unexpected_errors_of_jobs_are_in_the_log_and_nowhere_else() -> None:
    with structlog.testing.capture_logs() as lines:
        async with running(make_app()) as client:
            response = await client.post("/v1/encode", content=image(b"bug"))
    assert "secret" not in response.text
    [error] = [line for line in lines if line["log_level"] == "error"]
    assert "secret detail" in str(error["exc_info"])
    assert error["job"] == response.headers["x-picogram-job"]


async def test_clients_that_leave_are_counted_as_such() -> None:
    gate = Gate()
    app = make_app(gate)
    async with running(app):
        await post_and_leave(app, "/v1/encode", image())
        gate.gone.set()
        seen = await scrape(app)
    assert seen['picogram_requests_total{code="499",method="POST",route="/v1/encode"}'] == 1
