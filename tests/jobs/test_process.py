# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes as they are deployed: real processes against a real job store."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from valkey_server import ValkeyServer, free_port, needs_valkey, running_server
from worker_processes import PROGRAM, WorkerUnderTest

from picogram.errors import JobAbandoned, JobFailed
from picogram.jobs import Broker, Job
from picogram.jobs.cancellation import end
from picogram.jobs.connect import open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.observe.metrics import WorkerMetrics
from picogram.workers.health import Health, HealthServer

pytestmark = needs_valkey
Start = Callable[..., WorkerUnderTest]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with running_server(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def broker(server: ValkeyServer) -> AsyncIterator[Broker]:
    broker = open_broker(QueueSettings(redis_url=SecretStr(server.url), lease_seconds=1.0))
    yield broker
    await broker.close()


@pytest.fixture
def start(tmp_path: Path, server: ValkeyServer) -> Iterator[Start]:
    workers: list[WorkerUnderTest] = []

    def start(load: str = "0", **settings: Any) -> WorkerUnderTest:
        command = [str(PROGRAM), str(tmp_path / "notes"), load]
        workers.append(WorkerUnderTest(tmp_path, settings.pop("url", server.url), command, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def toy(command: str) -> Job:
    return Job("inspect", command.encode(), ("toy",), deadline=time.time() + 30)


async def until_taken(broker: Broker, job_id: str) -> None:
    async with asyncio.timeout(20):
        while (await broker.state(job_id)).status == "queued":  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.02)


async def test_it_is_ready_and_fetches_only_when_warm(broker: Broker, start: Start, tmp_path: Path) -> None:
    job_id = await broker.submit(toy("echo hello"))
    worker = start(load="1.5")
    await asyncio.to_thread(worker.wait, lambda: worker.probe("/livez")[0] == 200)
    assert worker.probe("/startupz") == (503, "loading models\n")
    assert worker.probe("/readyz") == (503, "loading models\n")
    assert (await broker.state(job_id)).status == "queued"
    assert (await broker.result(job_id)).payload == b"hello"
    await asyncio.to_thread(worker.wait, worker.ready)
    assert worker.probe("/startupz")[0] == 200
    assert [info.step for info in await broker.workers()] == ["toy"]
    assert worker.probe("/nowhere")[0] == 404
    assert "picogram_model_load_seconds{" in worker.probe("/metrics")[1]


async def test_sigterm_lets_the_running_batch_end_and_leaves_the_rest_to_others(
    broker: Broker, start: Start, tmp_path: Path
) -> None:
    worker = start(max_batch=1)
    running = await broker.submit(toy("sleep 1.2"))
    await until_taken(broker, running)
    waiting = [await broker.submit(toy(f"echo {number}")) for number in range(3)]
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait, lambda: worker.probe("/readyz") == (503, "shutting down\n"))
    assert worker.probe("/livez")[0] == 200
    assert await asyncio.to_thread(worker.process.wait, 20) == 0
    assert (await broker.state(running)).status == "done"
    assert [(await broker.state(job_id)).status for job_id in waiting] == ["queued"] * 3
    started = time.monotonic()
    start()
    results = [await broker.result(job_id) for job_id in waiting]
    assert [result.payload for result in results] == [b"0", b"1", b"2"]
    assert time.monotonic() - started < 10
    assert (tmp_path / "notes").read_text().splitlines()[0] == "1 sleep 1.2"


async def test_a_batch_that_outlasts_the_drain_time_is_handed_back_at_once(
    broker: Broker, start: Start
) -> None:
    worker = start(drain_seconds=0.3, lease_seconds=20)
    job_id = await broker.submit(toy("sleep 6"))
    await until_taken(broker, job_id)
    started = time.monotonic()
    assert await asyncio.to_thread(worker.end) == 0
    assert time.monotonic() - started < 5
    assert (await broker.state(job_id)).status == "queued"
    assert "handed back" in worker.log()
    start(lease_seconds=20)
    async with asyncio.timeout(8):
        await until_taken(broker, job_id)
    assert (await broker.state(job_id)).attempt == 1


async def test_a_second_signal_ends_it_at_once(broker: Broker, start: Start) -> None:
    worker = start()
    job_id = await broker.submit(toy("sleep 8"))
    await until_taken(broker, job_id)
    worker.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(worker.wait, lambda: "draining" in worker.log())
    started = time.monotonic()
    assert await asyncio.to_thread(worker.end) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 5


async def test_a_signal_while_loading_ends_it(start: Start) -> None:
    worker = start(load="30")
    await asyncio.to_thread(worker.wait, lambda: worker.probe("/livez")[0] == 200)
    assert await asyncio.to_thread(worker.end, signal.SIGTERM, 15) == 0


async def test_it_outlives_a_restart_of_the_job_store(
    broker: Broker, start: Start, server: ValkeyServer
) -> None:
    worker = start(max_batch=1)
    running = await broker.submit(toy("sleep 1"))
    await until_taken(broker, running)
    waiting = await broker.submit(toy("echo later"))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(worker.wait, lambda: not worker.ready())
    assert worker.probe("/readyz")[1] == "no connection to the job store\n"
    assert worker.probe("/livez")[0] == 200
    await asyncio.to_thread(server.start)
    after = open_broker(QueueSettings(redis_url=SecretStr(server.url)))
    assert (await after.result(running)).payload == b"1"
    assert (await after.result(waiting)).payload == b"later"
    await after.close()
    await asyncio.to_thread(worker.wait, worker.ready)
    assert await asyncio.to_thread(worker.end) == 0
    assert "Traceback" not in worker.log()


async def test_it_waits_for_a_job_store_that_is_not_there_yet(start: Start, tmp_path: Path) -> None:
    late = ValkeyServer(tmp_path / "late", free_port())
    worker = start(url=late.url)
    await asyncio.to_thread(worker.wait, lambda: worker.probe("/startupz")[0] == 200)
    assert worker.probe("/readyz") == (503, "no connection to the job store\n")
    late.start()
    try:
        await asyncio.to_thread(worker.wait, worker.ready)
        assert await asyncio.to_thread(worker.end) == 0
    finally:
        late.kill()


async def test_it_ends_in_time_when_the_job_store_is_away(start: Start, tmp_path: Path) -> None:
    worker = start(url=ValkeyServer(tmp_path / "never").url)
    await asyncio.to_thread(worker.wait, lambda: worker.probe("/startupz")[0] == 200)
    assert await asyncio.to_thread(worker.end, signal.SIGTERM, 20) == 0


@pytest.mark.parametrize(
    ("load", "problem"),
    [("missing", "weights are missing"), ("broken", "the models cannot be loaded: ZeroDivisionError")],
)
def test_models_that_cannot_be_loaded_end_it_with_5_and_a_line(start: Start, load: str, problem: str) -> None:
    worker = start(load=load)
    assert worker.process.wait(20) == 5
    last = worker.lines()[-1]
    assert (last["level"], last["event"], last["service"]) == ("error", "cannot work", "toy")
    assert last["problem"].startswith(problem)


async def test_models_that_are_still_to_be_pulled_are_awaited(
    broker: Broker, start: Start, tmp_path: Path
) -> None:
    worker = start(load=f"late {tmp_path / 'model'}")
    await asyncio.to_thread(worker.wait, lambda: "waiting" in worker.probe("/readyz")[1])
    expected = (503, "waiting for models: the model tall is missing: run something\n")
    assert (worker.probe("/readyz"), worker.probe("/startupz")) == (expected, expected)
    assert worker.probe("/livez")[0] == 200
    job_id = await broker.submit(toy("echo hello"))
    (tmp_path / "model").touch()
    assert (await broker.result(job_id)).payload == b"hello"
    assert worker.log().count("waiting for models") == 1
    assert await asyncio.to_thread(worker.end) == 0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_batch": 0}, "PICOGRAM_MAX_BATCH: "),
        ({"log_level": "loud"}, "PICOGRAM_LOG_LEVEL: "),
        ({"queue_prefix": "a b"}, "PICOGRAM_QUEUE_PREFIX: "),
        ({"health_host": "192.0.2.1"}, "cannot listen on 192.0.2.1:"),
    ],
)
def test_impossible_settings_end_it_with_2_and_a_line(
    start: Start, settings: dict[str, Any], problem: str
) -> None:
    worker = start(**settings)
    assert worker.process.wait(20) == 2
    assert problem in worker.log()
    assert "Traceback" not in worker.log()


async def test_unexpected_errors_are_logged_with_job_and_trace_and_kept_from_the_caller(
    broker: Broker, start: Start
) -> None:
    worker = start()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    job = Job(
        "inspect", b"fail", ("toy",), deadline=time.time() + 30, trace=f"00-{trace}-00f067aa0ba902b7-01"
    )
    with pytest.raises(JobFailed) as failure:
        await broker.result(await broker.submit(job))
    assert "secret" not in str(failure.value)
    await asyncio.to_thread(worker.wait, lambda: "a secret of this worker" in worker.log())
    told = {line["event"]: line for line in worker.lines()}
    for event in ("obeying", "unexpected error"):
        assert (told[event]["job"], told[event]["trace"]) == (job.id, trace)
    assert "ZeroDivisionError: a secret" in told["unexpected error"]["exception"]
    counted = 'picogram_jobs_total{outcome="error",step="toy"} 1.0'
    await asyncio.to_thread(worker.wait, lambda: counted in worker.probe("/metrics")[1])


async def test_jobs_of_a_killed_worker_are_done_by_another_and_poison_is_given_up(
    broker: Broker, start: Start
) -> None:
    poison = await broker.submit(toy("crash"))
    for _ in range(2):
        victim = start(lease_seconds=0.5, max_attempts=2)
        assert await asyncio.to_thread(victim.process.wait, 20) == 9
    last = start(lease_seconds=0.5, max_attempts=2)
    with pytest.raises(JobAbandoned):
        await broker.result(poison)
    assert (await broker.result(await broker.submit(toy("echo well")))).payload == b"well"
    await asyncio.to_thread(
        last.wait, lambda: 'picogram_dead_letters_total{step="toy"} 1.0' in last.probe("/metrics")[1]
    )
    assert "jobs given up" in last.log()


async def test_a_task_that_misses_its_cancellation_is_ended_all_the_same() -> None:
    async def stubborn() -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
        await asyncio.sleep(30)

    async def failing() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(*tasks)
    assert all(task.done() for task in tasks)


def test_a_probe_that_does_not_wait_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    registry = WorkerMetrics().registry
    server = HealthServer(Health(), registry, "127.0.0.1", 0)
    try:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                probe.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        time.sleep(0.3)
    finally:
        server.close()
    assert "Traceback" not in capfd.readouterr().err
