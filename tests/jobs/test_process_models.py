# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The real workers, with their models, as processes on a real job store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr
from valkey_server import ValkeyServer, needs_valkey, running_server
from worker_processes import WorkerUnderTest

from picogram.images import read_image, write_image
from picogram.jobs import Broker, Job
from picogram.jobs.connect import open_broker
from picogram.jobs.queue_settings import QueueSettings

pytestmark = [needs_valkey, pytest.mark.slow]
_COMMAND = """
import sys
import typer
from picogram.cli.worker_command import worker
app = typer.Typer()
app.command()(worker)
sys.exit(typer.main.get_command(app)(standalone_mode=False))
"""
Start = Callable[..., WorkerUnderTest]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with running_server(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def broker(server: ValkeyServer) -> AsyncIterator[Broker]:
    broker = open_broker(QueueSettings(redis_url=SecretStr(server.url)))
    yield broker
    await broker.close()


@pytest.fixture
def start(tmp_path: Path, server: ValkeyServer) -> Iterator[Start]:
    workers: list[WorkerUnderTest] = []

    def start(*command: str, **settings: Any) -> WorkerUnderTest:
        workers.append(WorkerUnderTest(tmp_path, server.url, command, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def job(payload: bytes, *route: str, **options: Any) -> Job:
    return Job("encode", payload, route, options, deadline=time.time() + 60)


async def test_a_picture_goes_through_encoder_and_decoder(
    broker: Broker, start: Start, server: ValkeyServer, photo: Image.Image
) -> None:
    workers = [
        start("-m", "picogram_encoder"),
        start("-c", _COMMAND, "decoder", "--redis", server.url, redis_url="redis://127.0.0.1:1/0"),
    ]
    jobs = [
        job(write_image(photo, "image/png"), "encoder", "decoder", bytes=700, media_type="image/webp"),
        job(write_image(photo, "image/png"), "encoder", bytes=700),
    ]
    ids = [await broker.submit(each) for each in jobs]
    picture, file = [await broker.result(job_id) for job_id in ids]
    assert read_image(picture.payload).size == photo.size
    assert picture.media_type == "image/webp"
    assert len(file.payload) <= 700
    for worker, counted in zip(
        workers,
        (
            'picogram_jobs_total{outcome="moved",step="encoder"} 1.0',
            'picogram_jobs_total{outcome="done",step="decoder"} 1.0',
        ),
        strict=True,
    ):
        await asyncio.to_thread(worker.wait, worker.ready)
        assert counted in worker.probe("/metrics")[1]
        assert await asyncio.to_thread(worker.end) == 0


async def test_the_language_model_worker_does_what_it_can_without_models(
    broker: Broker, start: Start, photo: Image.Image, cache: Path
) -> None:
    worker = start("-m", "picogram_lmm", lmm_models="pulled")
    await asyncio.to_thread(worker.wait, worker.ready, 60)
    warnings = [line["problem"] for line in worker.lines() if line["event"] == "working without a model"]
    assert len(warnings) == 3  # it codes, describes and hears
    assert all("picogram models pull" in warning for warning in warnings)
    payload = write_image(photo, "image/png")
    coded = await broker.result(
        await broker.submit(job(payload, "lmm:code", caption="an astronaut", profile="stc"))
    )
    assert coded.payload == payload
    variants = coded.metadata["words_to_write"]["variants"]
    assert variants[0]["description"]["caption"] == "an astronaut"
    assert await asyncio.to_thread(worker.end) == 0


async def test_the_language_model_worker_waits_for_its_models_and_says_for_which(
    start: Start, cache: Path
) -> None:
    worker = start("-m", "picogram_lmm")
    await asyncio.to_thread(worker.wait, lambda: "waiting for models" in worker.probe("/readyz")[1], 60)
    status, problem = worker.probe("/readyz")
    assert status == 503
    assert "picogram models pull text" in problem
    assert worker.probe("/livez")[0] == 200
    assert await asyncio.to_thread(worker.end) == 0


def test_impossible_language_model_settings_end_it_with_a_line(start: Start) -> None:
    worker = start("-m", "picogram_lmm", lmm_engine="steam")
    assert worker.process.wait(60) == 2
    last = worker.lines()[-1]
    assert last["problem"].startswith("PICOGRAM_LMM_ENGINE: ")


@pytest.mark.lmm
async def test_pictures_are_described(broker: Broker, start: Start, photo: Image.Image) -> None:
    worker = start("-m", "picogram_lmm", lmm_models="pulled")
    await asyncio.to_thread(worker.wait, worker.ready, 60)
    if "working without a model" in worker.log():
        pytest.skip("the models for words are not pulled")
    found = await broker.result(await broker.submit(job(write_image(photo, "image/png"), "lmm:describe")))
    assert json.loads(found.payload)["caption"]
