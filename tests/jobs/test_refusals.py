# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A store that answers with errors is away for now, and everything goes on by itself once it does not."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import pytest_asyncio
from brokers import LIMITS, eventually, job, upper, working
from refusing_store import REFUSALS, RefusingStore
from valkey_server import ValkeyServer

from picogram.errors import BrokerUnavailable, QueueFull
from picogram.jobs import Result, WorkerInfo, open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker
from picogram.jobs.redis.letters import DeadLetters


@pytest_asyncio.fixture
async def store(valkey: ValkeyServer) -> AsyncIterator[RefusingStore]:
    async with RefusingStore(valkey).open() as store:
        yield store


@pytest_asyncio.fixture
async def broker(store: RefusingStore) -> AsyncIterator[RedisBroker]:
    settings = {"redis_url": store.url, "queue_prefix": f"t{uuid.uuid4().hex[:8]}", "lease_seconds": 0.4}
    broker = open_broker(QueueSettings(**settings))  # type: ignore[arg-type]
    assert isinstance(broker, RedisBroker)
    yield broker
    await broker.close()


Asked = Callable[[], Coroutine[Any, Any, Any]]


async def first(stream: AsyncIterator[Any]) -> Any:
    return await anext(stream)


async def is_outage(ask: Asked) -> bool:
    try:
        await ask()
    except Exception as error:
        return isinstance(error, BrokerUnavailable)
    return False


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_any_refusal_of_any_command_is_an_outage(
    store: RefusingStore, broker: RedisBroker, refusal: str
) -> None:
    waiting, running = job("a", route=("lmm",)), job("b")
    await broker.submit(waiting)
    await broker.submit(running)
    [held] = await broker.fetch("encoder", LIMITS)
    asked: dict[str, Asked] = {
        "result": lambda: broker.result(waiting.id, 1),
        "state": lambda: broker.state(waiting.id),
        "events": lambda: first(broker.events(waiting.id)),
        "cancel": lambda: broker.cancel(waiting.id),
        "forget": lambda: broker.forget(waiting.id),
        "depth": lambda: broker.depth("encoder"),
        "workers": broker.workers,
        "fetch": lambda: broker.fetch("encoder", LIMITS, 1),
        "renew": lambda: broker.renew([held]),
        "publish": lambda: broker.publish(held, "progress", {"fraction": 0.5}),
        "finish": lambda: broker.finish(held, Result(b"B", "text/plain")),
        "release": lambda: broker.release([held]),
        "sweep": lambda: broker.sweep("encoder"),
        "announce": lambda: broker.announce(WorkerInfo("w", "encoder", "1", 0.0)),
        "letters": lambda: first(DeadLetters(broker, "encoder").read()),
    }
    store.refusal = REFUSALS[refusal]
    assert [name for name, ask in asked.items() if not await is_outage(ask)] == []
    with pytest.raises(QueueFull if "OOM" in refusal else BrokerUnavailable):
        await broker.submit(job("c"))
    with pytest.raises(QueueFull if "OOM" in refusal else BrokerUnavailable):
        await broker.submit(job("c" * 300_000))
    store.refusal = ""
    assert await broker.finish(held, Result(b"B", "text/plain"))


@pytest.mark.parametrize("refusal", ["MISCONF", "OOM", "READONLY", "old OOM", "WRONGTYPE"])
async def test_work_goes_on_by_itself_when_the_store_takes_commands_again(
    store: RefusingStore, broker: RedisBroker, refusal: str
) -> None:
    gate = asyncio.Event()

    def slow(jobs: list[Any]) -> list[Any]:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        for each in jobs:
            each.control.progress(0.5)
        return upper(jobs)

    loop = asyncio.get_running_loop()
    one, two = job("a"), job("b")
    async with working(broker, slow) as worker:
        await broker.submit(one)
        await eventually(lambda: worker.busy)
        store.refusal = REFUSALS[refusal]
        gate.set()
        await asyncio.sleep(0.7)  # renewals, reports, sweeps and looks for more, all refused
        store.refusal = ""
        assert (await asyncio.wait_for(broker.result(one.id), 10)).payload == b"A"
        await broker.submit(two)
        assert (await asyncio.wait_for(broker.result(two.id), 10)).payload == b"B"
        store.heard.clear()
        await asyncio.sleep(0.3)
        assert b"XREADGROUP" in store.heard


async def test_a_server_that_is_no_primary_any_more_is_left(
    store: RefusingStore, broker: RedisBroker
) -> None:
    """The name may lead elsewhere after a failover, but not for connections that stand."""
    await broker.depth("encoder")
    before = store.connections
    store.refusal = REFUSALS["READONLY"]
    with pytest.raises(BrokerUnavailable, match="READONLY"):
        await broker.announce(WorkerInfo("w", "encoder", "1", 0.0))
    store.refusal = ""
    await broker.depth("encoder")
    assert store.connections > before


async def test_connections_that_died_unnoticed_cost_no_answer(
    store: RefusingStore, broker: RedisBroker
) -> None:
    await broker.submit(job("a"))
    await asyncio.gather(*(broker.depth("encoder") for _ in range(20)))
    for ask in (
        lambda: broker.submit(job("b")),
        lambda: broker.depth("encoder"),
        lambda: broker.submit(job("c" * 300_000)),
        broker.workers,
        lambda: broker.announce(WorkerInfo("w", "encoder", "1", 0.0)),
    ):
        store.cut()
        await ask()
    assert await broker.depth("encoder") == 3


async def test_a_submission_whose_answer_got_lost_is_one_job(broker: RedisBroker) -> None:
    one = job("a", key="k", fingerprint="f")
    assert await broker.submit(one) == one.id
    assert await broker.submit(one) == one.id
    assert await broker.depth("encoder") == 1
    async with working(broker, upper):
        assert (await broker.result(one.id)).payload == b"A"


async def test_ends_of_jobs_are_heard_again_after_whatever_happened_to_the_listener(
    broker: RedisBroker,
) -> None:
    await broker.submit(job("a"))
    endings = broker._endings
    assert endings._listening
    endings._listening.cancel()
    await asyncio.wait([endings._listening])
    assert not endings._subscribed.is_set()
    one = job("b")
    await broker.submit(one)
    async with working(broker, upper):
        started = time.monotonic()
        await broker.result(one.id)
        assert time.monotonic() - started < 5
    assert not endings._listening.done()


async def test_a_worker_that_tells_other_things_of_itself_hides_no_other(broker: RedisBroker) -> None:
    await broker.announce(WorkerInfo("known", "encoder", "1", 0.0))
    client, keys = broker.store.client, broker.store.keys
    for name, told in (("later", json.dumps({"name": "later", "colour": "red"})), ("odd", "{")):
        await client.hset(keys.worker_facts, name, told)
        await client.zadd(keys.workers, {name: time.time()})
    assert [each.name for each in await broker.workers()] == ["known"]
