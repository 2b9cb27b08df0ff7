# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of every broker, and of the one worker loop over it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from picogram.errors import CorruptBitstream, JobCanceled, JobTimeout, QueueFull
from picogram.jobs import BatchLimits, Broker, Handler, Job, MemoryBroker, Outcome, Result, Worker

BrokerFactory = Callable[..., Broker]
LIMITS = BatchLimits()


@pytest.fixture(params=[MemoryBroker])
def make_broker(request: pytest.FixtureRequest) -> BrokerFactory:
    factory: BrokerFactory = request.param
    return factory


@pytest.fixture
def broker(make_broker: BrokerFactory) -> Broker:
    return make_broker(max_depth=32)


def job(name: str = "a", **fields: object) -> Job:
    return Job("encode", name.encode(), **{"route": ("encoder",), **fields})  # type: ignore[arg-type]


def upper(jobs: list[Job]) -> list[Outcome]:
    return [Result(job.payload.upper(), "text/plain", {"batch": len(jobs)}) for job in jobs]


@asynccontextmanager
async def working(broker: Broker, handler: Handler, limits: BatchLimits = LIMITS) -> AsyncIterator[Worker]:
    worker = Worker(broker, "encoder", handler, limits)
    task = asyncio.create_task(worker.run())
    yield worker
    worker.stop()
    await asyncio.wait_for(task, 5)


async def submit(broker: Broker, *jobs: Job) -> None:
    for each in jobs:
        await broker.submit(each)


def names(jobs: list[Job]) -> str:
    return "".join(job.payload.decode() for job in jobs)


async def test_round_trip_with_timings(broker: Broker) -> None:
    async with working(broker, upper):
        one = job("hello")
        await broker.submit(one)
        result = await broker.result(one.id)
    assert (result.payload, result.media_type) == (b"HELLO", "text/plain")
    assert set(result.timings) == {"queue", "run"}
    assert await broker.depth("encoder") == 0


async def test_depth_counts_waiting_and_running_and_is_bounded(make_broker: BrokerFactory) -> None:
    broker = make_broker(max_depth=2)
    await submit(broker, job("a"), job("b"))
    [first] = await broker.fetch("encoder", BatchLimits(count=1))
    assert await broker.depth("encoder") == 2
    with pytest.raises(QueueFull):
        await broker.submit(job("c"))
    await broker.submit(job("d", route=("decoder",)))
    await broker.finish(first, Result(b"", "text/plain"))
    await broker.submit(job("c"))


async def test_batches_are_bounded_by_count_and_keep_the_order(broker: Broker) -> None:
    await submit(broker, *(job(c) for c in "abcde"))
    batches = [await broker.fetch("encoder", BatchLimits(count=2)) for _ in range(3)]
    assert [names(batch) for batch in batches] == ["ab", "cd", "e"]


async def test_batches_are_bounded_by_cost_but_a_big_job_runs_alone(broker: Broker) -> None:
    await submit(broker, *(job(c, cost=n) for c, n in zip("abcd", (9, 3, 2, 1), strict=True)))
    batches = [await broker.fetch("encoder", BatchLimits(cost=5)) for _ in range(3)]
    assert [names(batch) for batch in batches] == ["a", "bc", "d"]


async def test_a_batch_is_compatible_and_the_oldest_job_goes_first(broker: Broker) -> None:
    await submit(broker, *(job(c, compatibility=k) for c, k in zip("abcd", "xyxy", strict=True)))
    assert [names(await broker.fetch("encoder", LIMITS)) for _ in range(2)] == ["ac", "bd"]


async def test_fetch_waits_for_a_job_and_gives_up(broker: Broker) -> None:
    assert await broker.fetch("encoder", LIMITS, wait=0) == []
    assert await broker.fetch("encoder", LIMITS, wait=0.01) == []
    fetching = asyncio.create_task(broker.fetch("encoder", LIMITS, wait=5))
    await asyncio.sleep(0.01)
    await broker.submit(job("a"))
    assert names(await fetching) == "a"


async def test_expired_jobs_are_dropped_at_fetch(broker: Broker) -> None:
    late = job("a", deadline=time.time() - 1)
    await submit(broker, late, job("b", deadline=time.time() + 60))
    assert names(await broker.fetch("encoder", LIMITS)) == "b"
    with pytest.raises(JobTimeout):
        await broker.result(late.id)


async def test_the_deadline_ends_the_wait_of_a_running_job(broker: Broker) -> None:
    slow = job("a", deadline=time.time() + 0.05)
    await broker.submit(slow)
    [fetched] = await broker.fetch("encoder", LIMITS)
    with pytest.raises(JobTimeout):
        await broker.result(slow.id)
    await broker.finish(fetched, Result(b"late", "text/plain"))
    assert await broker.depth("encoder") == 0


async def test_cancel_while_waiting(broker: Broker) -> None:
    one, two = job("a"), job("b")
    await submit(broker, one, two)
    waiting = asyncio.create_task(broker.result(one.id))
    await asyncio.sleep(0)
    assert await broker.cancel(one.id)
    with pytest.raises(JobCanceled):
        await waiting
    assert not await broker.cancel(one.id)
    assert names(await broker.fetch("encoder", LIMITS)) == "b"


async def test_cancel_while_running(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    waiting = asyncio.create_task(broker.result(one.id))
    [fetched] = await broker.fetch("encoder", LIMITS)
    await asyncio.sleep(0)
    assert await broker.cancel(one.id)
    await broker.finish(fetched, Result(b"late", "text/plain"))
    with pytest.raises(JobCanceled):
        await waiting


async def test_a_waiter_that_goes_away_cancels_its_job(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    waiting = asyncio.create_task(broker.result(one.id))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await broker.depth("encoder") == 0


async def test_a_job_takes_the_steps_of_its_route(broker: Broker) -> None:
    two = job("a", route=("lmm:code", "encoder"), options={"bytes": 9})
    await broker.submit(two)
    [first] = await broker.fetch("lmm", LIMITS)
    assert (first.task, first.facts, first.warnings) == ("code", {}, ())
    said = Result(b"caption", "text/plain", {"language": "en", "batch": 0}, ("odd",), {"run": 1.0})
    await broker.finish(first, said)
    assert await broker.depth("lmm") == 0
    [second] = await broker.fetch("encoder", LIMITS)
    assert (second.payload, second.task, second.options) == (b"caption", "", {"bytes": 9})
    assert (second.facts, second.warnings, second.timings) == (said.metadata, ("odd",), {"run": 1.0})
    await broker.finish(second, Result(b"file", "text/plain", {"batch": 1}, ("odder",)))
    result = await broker.result(two.id)
    assert (result.payload, result.warnings) == (b"file", ("odd", "odder"))
    assert result.metadata == {"language": "en", "batch": 1}


async def test_timings_add_up_over_a_route(broker: Broker) -> None:
    two = job("a", route=("lmm", "encoder"))
    await broker.submit(two)
    [first] = await broker.fetch("lmm", LIMITS)
    await broker.finish(first, Result(b"caption", "text/plain", timings={"run": 1.0, "queue": 2.0}))
    async with working(broker, upper):
        result = await broker.result(two.id)
    assert result.payload == b"CAPTION"
    assert 1.0 <= result.timings["run"] < 2.0
    assert result.timings["queue"] >= 2.0


async def test_a_step_may_come_twice_and_its_failure_ends_the_route(broker: Broker) -> None:
    both = [job(c, route=("lmm:code", "encoder", "lmm:recode")) for c in "ab"]
    await submit(broker, *both)
    for step in ("lmm", "encoder"):
        for each in await broker.fetch(step, LIMITS):
            await broker.finish(each, Result(each.payload, "text/plain"))
    one, two = await broker.fetch("lmm", LIMITS)
    assert (one.task, two.task) == ("recode", "recode")
    await broker.finish(one, CorruptBitstream("a"))
    await broker.finish(two, Result(b"file", "text/plain"))
    with pytest.raises(CorruptBitstream):
        await broker.result(one.id)
    assert (await broker.result(two.id)).payload == b"file"


async def test_a_batch_has_one_task(broker: Broker) -> None:
    routes = {"a": "lmm:read", "b": "lmm:code", "c": "lmm:read", "d": "lmm:code"}
    await submit(broker, *(job(name, route=(step,)) for name, step in routes.items()))
    assert [names(await broker.fetch("lmm", LIMITS)) for _ in range(2)] == ["ac", "bd"]


async def test_a_full_queue_takes_what_moves_on(make_broker: BrokerFactory) -> None:
    broker = make_broker(max_depth=1)
    moving = job("a", route=("lmm", "encoder"))
    await submit(broker, moving, job("b"))
    [first] = await broker.fetch("lmm", LIMITS)
    await broker.finish(first, Result(b"c", "text/plain"))
    assert await broker.depth("encoder") == 2
    with pytest.raises(QueueFull):
        await broker.submit(job("d"))


async def test_a_job_canceled_between_steps_goes_no_further(broker: Broker) -> None:
    one = job("a", route=("lmm", "encoder"))
    await broker.submit(one)
    [fetched] = await broker.fetch("lmm", LIMITS)
    assert await broker.cancel(one.id)
    await broker.finish(fetched, Result(b"late", "text/plain"))
    assert await broker.depth("encoder") == 0


def test_a_job_needs_a_route() -> None:
    with pytest.raises(ValueError, match="step"):
        job(route=())


async def test_one_failure_fails_one_job(broker: Broker) -> None:
    def handler(jobs: list[Job]) -> list[Outcome]:
        return [CorruptBitstream("b") if each.payload == b"b" else upper([each])[0] for each in jobs]

    jobs = [job(c) for c in "abc"]
    await submit(broker, *jobs)
    async with working(broker, handler):
        assert (await broker.result(jobs[0].id)).payload == b"A"
        with pytest.raises(CorruptBitstream):
            await broker.result(jobs[1].id)
        assert (await broker.result(jobs[2].id)).payload == b"C"


@pytest.mark.parametrize("fault", ["raise", "short"])
async def test_a_batch_that_fails_as_a_whole_is_tried_one_by_one(broker: Broker, fault: str) -> None:
    def handler(jobs: list[Job]) -> list[Outcome]:
        if any(each.payload == b"b" for each in jobs):
            if fault == "raise":
                raise ZeroDivisionError
            return []
        return upper(jobs)

    jobs = [job(c) for c in "abc"]
    await submit(broker, *jobs)
    async with working(broker, handler):
        assert (await broker.result(jobs[0].id)).payload == b"A"
        with pytest.raises((ZeroDivisionError, RuntimeError)):
            await broker.result(jobs[1].id)
        assert (await broker.result(jobs[2].id)).payload == b"C"


async def test_the_worker_batches_what_gathers_while_it_is_busy(broker: Broker) -> None:
    sizes: list[int] = []
    threads: set[int] = set()
    busy, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def handler(jobs: list[Job]) -> list[Outcome]:
        sizes.append(len(jobs))
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(busy.set)
        assert gate.wait(5)
        return upper(jobs)

    jobs = [job(c) for c in "abcdefg"]
    async with working(broker, handler, BatchLimits(count=4)):
        await broker.submit(jobs[0])
        await busy.wait()
        await submit(broker, *jobs[1:])
        gate.set()
        results = [await broker.result(each.id) for each in jobs]
    assert b"".join(result.payload for result in results) == b"ABCDEFG"
    assert sizes == [1, 4, 2]
    assert len(threads) == 1


async def test_stop_drains_the_queue(broker: Broker) -> None:
    jobs = [job(c) for c in "abcd"]
    async with working(broker, upper, BatchLimits(count=1)) as worker:
        await asyncio.sleep(0.01)
        await submit(broker, *jobs)
        worker.stop()
        results = [await broker.result(each.id) for each in jobs]
    assert [result.payload for result in results] == [b"A", b"B", b"C", b"D"]
    await broker.submit(job("late"))
    assert await broker.depth("encoder") == 1
