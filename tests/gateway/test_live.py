# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway behind real sockets: clients that are slow, greedy, rude or gone, and the process from start to end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from gateway_apps import DOT, Gate, check_problem, echo, image, listening, make_app, running
from valkey_server import ValkeyServer, free_port, needs_valkey

from picogram.errors import UsageError
from picogram.jobs import Job, Outcome
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.serve import listen

HEAD = b"POST /v1/encode HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"


async def exchange(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """Everything that comes back when the parts are sent, one after the other, until the server closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def answer(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Status and problem."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a socket."""
    async with (
        listening(app) as (host, port),
        httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=10) as client,
    ):
        yield client


async def test_a_slow_body_is_given_up() -> None:
    async with listening(make_app(body_timeout_seconds=0.2)) as address:
        started = time.monotonic()
        raw = await exchange(address, HEAD + b"Content-Length: 1000\r\n\r\n", b"x")
        status, problem = answer(raw)
        assert (status, problem["type"].rpartition("/")[2]) == (408, "body-timeout")
        assert b"connection: close" in raw.lower()
        assert time.monotonic() - started < 5


async def test_a_body_that_trickles_is_given_up_all_the_same() -> None:
    async with listening(make_app(body_timeout_seconds=0.6)) as address:
        raw = await exchange(address, HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 3, pause=0.1)
        assert answer(raw)[0] == 408


async def test_a_chunked_body_is_refused_when_it_has_grown_too_large() -> None:
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    close = b"Connection: close\r\n"
    async with listening(make_app(max_body_bytes=15_000)) as address:
        raw = await exchange(
            address, HEAD + close + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, pause=0.05
        )
        status, problem = answer(raw)
    assert (status, problem["limit"]) == (413, 15_000)


async def test_a_declared_body_is_refused_before_it_is_sent() -> None:
    async with listening(make_app(max_body_bytes=15_000)) as address:
        head = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        raw = await exchange(address, head)
    assert raw.startswith(b"HTTP/1.1 413")
    assert b"100 Continue" not in raw


async def test_a_head_without_end_ends_the_connection() -> None:
    async with listening(make_app(head_timeout_seconds=0.3)) as address:
        started = time.monotonic()
        trickle = [b"GET /livez HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 4]
        with pytest.raises((ConnectionError, AssertionError)):
            assert await exchange(address, *trickle, pause=0.1)
        assert time.monotonic() - started < 5
        with pytest.raises((ConnectionError, AssertionError)):
            assert await exchange(address)


async def test_a_head_in_time_is_served_on_a_kept_connection() -> None:
    async with listening(make_app(head_timeout_seconds=0.2)) as address:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(3):
            writer.write(b"GET /livez HTTP/1.1\r\n")
            await asyncio.sleep(0.1)
            writer.write(b"Host: x\r\n\r\n")
            assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_job_may_take_longer_than_a_head() -> None:
    def slow(jobs: list[Job]) -> list[Outcome]:
        time.sleep(0.5)
        return echo(jobs)

    app = make_app(slow, head_timeout_seconds=0.1, body_timeout_seconds=0.1)
    async with calling(app) as client:
        assert (await client.post("/v1/encode", content=image())).status_code == 200


async def test_huge_heads_are_refused() -> None:
    async with listening(make_app(max_head_bytes=2000)) as address:
        raw = await exchange(address, b"GET /livez HTTP/1.1\r\nX-A: " + b"b" * 5000)
        assert raw.startswith(b"HTTP/1.1 400")


async def test_an_answer_that_nobody_takes_ends_the_connection() -> None:
    def large(jobs: list[Job]) -> list[Outcome]:
        return echo([_with_text(job, 8_000_000) for job in jobs])

    app = make_app(large, head_timeout_seconds=0.2)
    async with listening(app) as address:
        reader, writer = await asyncio.open_connection(*address, limit=1000)
        body = image()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readexactly(15)
        await asyncio.sleep(1.5)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(8_000_000)
        writer.close()


def _with_text(job: Job, size: int) -> Job:
    return replace(job, payload=DOT + b"x" * size)


async def test_a_client_that_hangs_up_cancels_its_job() -> None:
    gate = Gate()
    app = make_app(gate)
    async with calling(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=image(b"one")))
        await gate.busy.wait()
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/v1/encode", content=image(b"two"), timeout=0.2)
        async with asyncio.timeout(5):
            while await app.state.dispatcher.broker.depth("encoder") > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        gate.gone.set()
        assert (await first).status_code == 200
    assert gate.seen == [b"one"]


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_error_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with listening(make_app()) as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\nxxx")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
    out = "".join(capsys.readouterr())
    assert "499" in out
    assert "Traceback" not in out


async def test_events_arrive_as_they_happen_and_end_with_the_server() -> None:
    gate = Gate()
    async with calling(make_app(gate)) as client:
        accepted = await client.post("/v1/encode", content=image(), headers={"prefer": "respond-async"})
        lines = []
        async with client.stream("GET", accepted.json()["links"]["events"]) as response:
            async for line in response.aiter_lines():
                lines.append(line)
                if line == "event: running":
                    gate.gone.set()
    assert [line for line in lines if line.startswith("event")] == [
        "event: queued",
        "event: running",
        "event: done",
    ]


@needs_valkey
async def test_without_a_job_store_the_gateway_starts_says_so_and_recovers(tmp_path: Path) -> None:
    port = free_port()
    store = ValkeyServer(tmp_path / "store", port)
    gate = Gate()
    gate.gone.set()
    async with running(make_app(gate, redis_url=store.url)) as client:
        assert (await client.get("/livez")).status_code == 200
        while (await client.get("/startupz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for method, path in (("GET", "/readyz"), ("POST", "/v1/encode"), ("GET", f"/v1/jobs/{'0' * 32}")):
            content = image() if method == "POST" else None
            response = await client.request(method, path, content=content)
            check_problem(response, 503, "broker-unavailable")
            assert int(response.headers["retry-after"]) >= 1
        await asyncio.to_thread(store.start)
        try:
            async with asyncio.timeout(10):
                while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (await client.post("/v1/encode", content=image())).status_code == 200
        finally:
            store.kill()


class Process:
    """``python -m picogram_gateway`` with settings from the environment."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        names = {f"PICOGRAM_{name.upper()}": value for name, value in environment.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picogram_gateway", *arguments],
            env={**os.environ, **names},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, seconds: float = 30) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "can be reached from outside"),
        ([], {"rate_limit": "often"}, "PICOGRAM_RATE_LIMIT"),
    ],
)
def test_a_server_that_should_not_start_says_why_in_one_line(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    code, out, err = Process(*arguments, log_level="error", **environment).end()
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.endswith("[usage]\n")
    assert len(err.splitlines()) == 1


def test_an_address_that_cannot_be_listened_on_is_the_users_affair() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 203\.0\.113\.1:8080"):
        listen(GatewaySettings(host="203.0.113.1"))


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def test_a_process_over_a_job_store_serves_measures_and_ends_with_0(valkey: ValkeyServer) -> None:
    port, metrics = free_port(), free_port()
    process = Process(
        *("--port", str(port), "--redis", valkey.url),
        metrics_port=str(metrics),
        log_format="json",
        queue_prefix=f"test-{port}",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _status(f"{url}/readyz") == 200)
        body = httpx2.get(f"{url}/v1/models").json()
        assert [worker["step"] for worker in body["workers"]] == ["inspector"]
        text = httpx2.get(f"http://127.0.0.1:{metrics}/metrics").text
        assert 'picogram_queue_depth{priority="high",step="encoder"} 0.0' in text
        process.process.send_signal(signal.SIGTERM)
        code, _, err = process.end()
    finally:
        process.process.kill()
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[0]["event"] == "starting"
    assert {line["level"] for line in lines} == {"info"}


def _status(url: str) -> int:
    try:
        return httpx2.get(url, timeout=2).status_code
    except httpx2.HTTPError:
        return 0


def test_a_fleet_gateway_inspects_and_compares_without_torch() -> None:
    code = """
import sys
from gateway_apps import image, pico
from picogram.jobs import Job
from picogram_gateway.workers import fleet_backend
backend = fleet_backend()
assert list(backend.handlers) == ["inspector"]
assert backend.catalogue()["profiles"]
options = {"codec": "webp", "bytes": 500}
for job in (Job("inspect", pico(), ("inspector",)), Job("reference", image(), ("inspector:reference",), options)):
    [outcome] = backend.handlers["inspector"]([job])
    assert not isinstance(outcome, Exception), outcome
sys.exit("torch" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
