# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A job store that answers with errors is away, as one that does not answer: nothing else breaks, and no loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from brokers import LIMITS, job, upper

from picogram.errors import BrokerUnavailable, QueueFull
from picogram.jobs import Worker, WorkerInfo, open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker

AWAY = (
    "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "NOAUTH Authentication required.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "BUSY Redis is busy running a script.",
    "NOSCRIPT No matching script. Please use EVAL.",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "ERR max number of clients reached",
    "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -READONLY You can't write",
    "UNHEARDOF of an error of tomorrow",
)
FULL = (
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed when used",
)


@asynccontextmanager
async def store(answer: str) -> AsyncIterator[RedisBroker]:
    """A broker over a server that gives every command the same error."""

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                writer.write(b"-" + answer.encode() + b"\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(each, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broker = open_broker(QueueSettings(redis_url=f"redis://127.0.0.1:{port}/0"))  # type: ignore[arg-type]
    assert isinstance(broker, RedisBroker)
    try:
        yield broker
    finally:
        await broker.close()
        server.close()


@pytest.mark.parametrize("answer", AWAY + FULL, ids=lambda text: text[:40])
async def test_every_call_says_that_the_store_is_away(answer: str) -> None:
    one = job("a")
    async with store(answer) as broker:
        for call in (
            lambda: broker.result(one.id, 0),
            lambda: broker.state(one.id),
            lambda: anext(broker.events(one.id)),
            lambda: broker.cancel(one.id),
            lambda: broker.forget(one.id),
            lambda: broker.depth("encoder"),
            lambda: broker.workers(),
            lambda: broker.fetch("encoder", LIMITS, 0),
            lambda: broker.renew([one]),
            lambda: broker.publish(one, "progress", {"fraction": 0.5}),
            lambda: broker.sweep("encoder"),
            lambda: broker.announce(WorkerInfo("one", "encoder", "1", 0.0)),
        ):
            with pytest.raises(BrokerUnavailable):
                await call()
        with pytest.raises(QueueFull if answer in FULL else BrokerUnavailable):
            await broker.submit(one)


@pytest.mark.parametrize("answer", [AWAY[0], FULL[1], AWAY[-1]], ids=lambda text: text[:20])
async def test_a_workers_loop_goes_on(answer: str) -> None:
    async with store(answer) as broker:
        worker = Worker(broker, "encoder", upper, LIMITS)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.7)
        assert not running.done()
        worker.stop()
        await asyncio.wait_for(running, 5)


async def test_a_workers_loop_outlives_any_fault_of_its_broker() -> None:
    class Faulty(RedisBroker):
        async def fetch(self, *args: object, **more: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("a fault of ours")

    async with store(AWAY[0]) as broker:
        broker.__class__ = Faulty
        worker = Worker(broker, "encoder", upper, LIMITS)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.7)
        assert not running.done()
        worker.stop()
        await asyncio.wait_for(running, 5)
