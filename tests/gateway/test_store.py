# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What callers see of a job store that goes away."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from brokers import eventually, upper
from gateway_apps import check_problem, image, make_app, running
from valkey_server import running_server

from picogram.jobs import Job, Outcome

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
