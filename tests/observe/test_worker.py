# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker tells of itself: metrics, log lines, and probes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from picogram.errors import JobCanceled, UnreadableImage, UsageError
from picogram.jobs import BatchLimits, Job, MemoryBroker, Outcome, Result, Worker
from picogram.jobs.broker import Swept
from picogram.jobs.observer import Observer
from picogram.observe import logs
from picogram.observe.combined import CombinedObserver
from picogram.observe.log_settings import LogSettings
from picogram.observe.logs import LogObserver
from picogram.observe.metrics import WorkerMetrics
from picogram.workers import health as health_module
from picogram.workers.health import Health, HealthServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Log:
    """What is written to standard error."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    """Loggers are as before afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("picogram")
    before = root.handlers[:], root.level, ours.level
    yield Log(capsys)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


async def work_off(jobs: list[Job], observer: Observer) -> None:
    """Run the jobs in one batch; a job's payload says how it goes."""

    def handler(batch: list[Job]) -> list[Outcome]:
        structlog.get_logger("picogram.test").info("handling")
        logging.getLogger("picogram.test").info("handling by the standard library")
        fates: dict[bytes, Outcome] = {
            b"typed": UnreadableImage("no image"),
            b"strange": ZeroDivisionError("secret"),
        }
        return [fates.get(job.payload, Result(b"12345", "text/plain")) for job in batch]

    broker = MemoryBroker()
    for job in jobs:
        await broker.submit(job)
    worker = Worker(broker, "encoder", handler, BatchLimits(8), observer)
    running = asyncio.create_task(worker.run())
    worker.stop(empty_queue=True)
    await running


def job(payload: bytes = b"abc", *route: str, **fields: Any) -> Job:
    return Job("encode", payload, route or ("encoder:draw",), **fields)


async def test_metrics_count_batches_jobs_bytes_and_waits() -> None:
    metrics = WorkerMetrics()
    metrics.announce("encoder")
    waited = time.time() - 3
    await work_off(
        [
            job(priority="high", queued_at=waited),
            job(b"typed"),
            job(b"strange"),
            job(b"onward", "encoder:draw", "decoder"),
        ],
        metrics,
    )
    metrics.loaded("encoder", 2.5)
    metrics.swept("encoder", Swept(reclaimed=3, dead=1, workers=1))
    value = metrics.registry.get_sample_value
    step = {"step": "encoder"}
    assert value("picogram_batch_size_count", step) == 1
    assert value("picogram_batch_size_sum", step) == 4
    assert value("picogram_step_seconds_count", step | {"task": "draw"}) == 1
    assert value("picogram_queue_wait_seconds_count", step | {"priority": "normal"}) == 3
    assert 3 <= (value("picogram_queue_wait_seconds_sum", step | {"priority": "high"}) or 0) < 5
    endings = {name: value("picogram_jobs_total", step | {"outcome": name}) for name in ("done", "moved")}
    endings |= {
        name: value("picogram_jobs_total", step | {"outcome": name}) for name in ("failed", "error", "late")
    }
    assert endings == {"done": 1, "moved": 1, "failed": 1, "error": 1, "late": 0}
    assert value("picogram_payload_bytes_total", step | {"direction": "in"}) == 3 + 5 + 7 + 6
    assert value("picogram_payload_bytes_total", step | {"direction": "out"}) == 10
    assert value("picogram_redeliveries_total", step) == 3
    assert value("picogram_dead_letters_total", step) == 1
    assert value("picogram_model_load_seconds", step) == 2.5
    assert value("picogram_worker_busy", step) == 0
    assert (value("process_resident_memory_bytes") or 0) > 1e6


def test_the_worker_counts_as_busy_during_the_batch() -> None:
    metrics = WorkerMetrics()
    with metrics.started("encoder", [job()]):
        assert metrics.registry.get_sample_value("picogram_worker_busy", {"step": "encoder"}) == 1
    assert metrics.registry.get_sample_value("picogram_worker_busy", {"step": "encoder"}) == 0


async def test_whatever_is_logged_in_a_batch_names_its_job_and_trace(log: Log) -> None:
    logs.configure(LogSettings(log_format="json"), service="encoder")
    one = job(trace=PARENT)
    await work_off([one], LogObserver())
    structlog.get_logger("picogram.test").info("afterwards")
    inside, standard, after = log.lines()
    assert inside["event"] == "handling"
    assert standard["event"] == "handling by the standard library"
    for line in (inside, standard):
        assert (line["job"], line["trace"], line["service"]) == (one.id, TRACE, "encoder")
    assert "job" not in after


async def test_a_batch_of_several_is_logged_with_all_their_names(log: Log) -> None:
    logs.configure(LogSettings(log_format="json"))
    both = [job(trace=PARENT), job()]
    await work_off(both, LogObserver())
    inside = log.lines()[0]
    assert (inside["jobs"], inside["traces"]) == ([each.id for each in both], [TRACE])


async def test_trouble_is_logged_and_smooth_running_is_not(log: Log) -> None:
    logs.configure(LogSettings(log_format="json", log_level="warning"))
    strange = job(b"strange", trace=PARENT)
    await work_off([job(), job(b"typed"), strange], LogObserver())
    observer = LogObserver()
    observer.swept("encoder", Swept())
    observer.swept("encoder", Swept(reclaimed=2, dead=1))
    observer.finished("encoder", strange, JobCanceled("gone"), "late")
    told = log.lines()
    assert [(line["level"], line["event"]) for line in told] == [
        ("error", "unexpected error"),
        ("warning", "jobs of dead workers wait again"),
        ("error", "jobs given up after too many attempts"),
        ("warning", "finished"),
    ]
    assert (told[0]["job"], told[0]["trace"]) == (strange.id, TRACE)
    assert "ZeroDivisionError: secret" in told[0]["exception"]


def test_other_packages_are_heard_from_warnings_up_in_the_same_format(log: Log) -> None:
    logs.configure(LogSettings(log_format="json", log_level="debug"), service="encoder")
    logging.getLogger("somebody").info("chatter")
    logging.getLogger("somebody").warning("beware of %s", "the dog")
    logging.getLogger("picogram.lmm").debug("our own")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("deprecated", UserWarning, stacklevel=1)
    told = log.lines()
    assert [line["event"] for line in told[:2]] == ["beware of the dog", "our own"]
    assert (told[0]["level"], told[0]["logger"], told[0]["service"]) == ("warning", "somebody", "encoder")
    assert "UserWarning: deprecated" in told[2]["event"]


def test_text_shows_the_traceback_and_is_plain_unless_on_a_terminal(log: Log) -> None:
    logs.configure(LogSettings(log_format="text"))
    LogObserver().failed("encoder", job(), ZeroDivisionError("secret"))
    told = log.text()
    assert "unexpected error" in told
    assert "ZeroDivisionError: secret" in told
    assert "\x1b[" not in told  # this is no terminal, though it is treated as one


def test_observers_are_entered_in_order_and_left_in_reverse() -> None:
    told: list[str] = []

    class Noting(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
            told.append(f"{self.name} in")
            yield
            told.append(f"{self.name} out")

        def batch(self, step: str, task: str, size: int, seconds: float) -> None:
            told.append(f"{self.name} {size}")

    both = CombinedObserver(Noting("a"), Noting("b"))
    with both.started("encoder", [job()]):
        told.append("work")
    both.batch("encoder", "", 1, 0.1)
    assert told == ["a in", "b in", "work", "b out", "a out", "a 1", "b 1"]


@pytest.fixture
def probes() -> Iterator[tuple[Health, HealthServer]]:
    health = Health()
    server = HealthServer(health, WorkerMetrics().registry, "127.0.0.1", 0)
    yield health, server
    server.close()


def ask(server: HealthServer, path: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["Content-Type"]


def test_probes_follow_the_worker_through_its_life(probes: tuple[Health, HealthServer]) -> None:
    health, server = probes
    assert ask(server, "/livez")[:2] == (200, "ok\n")
    assert ask(server, "/startupz")[:2] == ask(server, "/readyz")[:2] == (503, "loading models\n")
    health.warm = True
    assert ask(server, "/startupz")[0] == 200
    assert ask(server, "/readyz")[:2] == (503, "no connection to the job store\n")
    health.reachable = True
    assert ask(server, "/readyz?verbose=1")[0] == 200
    health.draining = True
    assert ask(server, "/readyz")[:2] == (503, "shutting down\n")
    assert ask(server, "/livez")[0] == 200


def test_an_event_loop_that_hangs_is_not_alive(
    probes: tuple[Health, HealthServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    health, server = probes
    monkeypatch.setattr(health_module, "STALE_SECONDS", 0.05)
    time.sleep(0.1)
    assert ask(server, "/livez")[0] == 503
    health.beat()
    assert ask(server, "/livez")[0] == 200


def test_metrics_come_in_the_format_asked_for(probes: tuple[Health, HealthServer]) -> None:
    _, server = probes
    status, text, kind = ask(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert "# TYPE picogram_jobs_total counter" in text
    assert ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].endswith(
        "# EOF\n"
    )


def test_a_port_that_is_taken_is_a_usage_error(probes: tuple[Health, HealthServer]) -> None:
    with pytest.raises(UsageError, match="cannot listen on"):
        HealthServer(Health(), WorkerMetrics().registry, "127.0.0.1", probes[1].port)
