# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Brokers and jobs for the tests of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from picogram.jobs import BatchLimits, Broker, Event, Handler, Job, Observer, Outcome, Result, Worker

BrokerFactory = Callable[..., Broker]
LIMITS = BatchLimits()


def job(name: str = "a", **fields: Any) -> Job:
    return Job("encode", name.encode(), **{"route": ("encoder",), **fields})


def upper(jobs: list[Job]) -> list[Outcome]:
    return [Result(job.payload.upper(), "text/plain", {"batch": len(jobs)}) for job in jobs]


@asynccontextmanager
async def working(
    broker: Broker, handler: Handler, limits: BatchLimits = LIMITS, observer: Observer | None = None
) -> AsyncIterator[Worker]:
    worker = Worker(broker, "encoder", handler, limits, observer)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, 10)


async def submit(broker: Broker, *jobs: Job) -> None:
    for each in jobs:
        await broker.submit(each)


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Returns when the condition holds, which may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if asyncio.iscoroutine(holds) else holds:
                return
            await asyncio.sleep(0.01)


async def collect(broker: Broker, job_id: str, after: str = "") -> list[Event]:
    return [event async for event in broker.events(job_id, after)]


def names(jobs: list[Job]) -> str:
    return "".join(job.payload.decode() for job in jobs)
