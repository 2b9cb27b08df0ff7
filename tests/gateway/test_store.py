# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What callers see of a job store that goes away."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx2
import pytest
from brokers import eventually, upper
from gateway_apps import check_problem, image, make_app, pico, running
from refusing_store import REFUSALS, RefusingStore
from valkey_server import ValkeyServer, running_server

from picogram.jobs import Job, Outcome
from picogram_gateway import dispatch
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import Backend

HEADERS = {"content-type": "image/png"}


async def test_a_restart_of_the_store_ends_no_wait_and_costs_no_result(tmp_path: Path) -> None:
    busy, gate = threading.Event(), threading.Event()

    def describe(jobs: list[Job]) -> list[Outcome]:
        busy.set()
        assert gate.wait(20)
        return upper(jobs)

    with running_server(tmp_path) as server:
        async with running(make_app(lmm=describe, redis_url=server.url)) as client:
            waiting = asyncio.create_task(client.post("/v1/describe", content=image(), headers=HEADERS))
            await eventually(busy.is_set)
            server.stop()
            gate.set()
            answer = await client.post("/v1/describe", content=image(), headers=HEADERS)
            check_problem(answer, 503, "broker-unavailable")
            assert not waiting.done()
            server.start()
            answer = await asyncio.wait_for(waiting, 20)
        assert (answer.status_code, answer.content) == (200, image().upper())


async def test_a_store_that_refuses_is_told_as_an_outage_and_is_all_right_after(valkey: ValkeyServer) -> None:
    async with (
        RefusingStore(valkey).open() as store,
        running(make_app(redis_url=store.url, queue_prefix="refused")) as client,
    ):
        await eventually(lambda: _ready(client))
        store.refusal = REFUSALS["MISCONF"]
        for path in ("/readyz", "/v1/models"):
            answer = await client.get(path)
            check_problem(answer, 503, "broker-unavailable")
            assert int(answer.headers["retry-after"]) > 0
        check_problem(await client.post("/v1/inspect", content=pico()), 503, "broker-unavailable")
        assert (await client.get("/livez")).status_code == 200
        await asyncio.sleep(1)
        store.refusal = ""
        await eventually(lambda: _ready(client))
        assert (await client.post("/v1/inspect", content=pico())).status_code == 200


async def _ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_a_worker_of_the_gateway_that_has_died_takes_its_liveness_with_it() -> None:
    app = make_app()
    async with running(app) as client:
        await eventually(lambda: _ready(client))
        assert (await client.get("/livez")).status_code == 200
        app.state.dispatcher._tasks[0].cancel()
        await asyncio.wait(app.state.dispatcher._tasks[:1])
        for path in ("/livez", "/readyz"):
            assert "has died" in check_problem(await client.get(path), 503, "not-ready")["detail"]


async def test_models_that_cannot_be_loaded_at_first_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def warm_up() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the disk is away")

    monkeypatch.setattr(dispatch, "_MODELS_AGAIN", 0.01)
    app = create_app(GatewaySettings(), Backend({"inspector": upper}, warm_up))
    async with running(app) as client:
        await eventually(lambda: _ready(client))
    assert len(tries) == 3
