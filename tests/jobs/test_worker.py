# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The one worker loop, over every broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from brokers import LIMITS, BrokerFactory, collect, eventually, job, submit, upper, working

from picogram.errors import CorruptBitstream, JobCanceled, JobFailed, JobOutOfMemory
from picogram.jobs import BatchLimits, Broker, Job, MemoryBroker, Observer, Outcome, Result
from picogram.jobs.broker import Swept
from picogram.jobs.observer import Ending
from picogram.observe.combined import CombinedObserver


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
        with pytest.raises(JobFailed):
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
    async with working(broker, handler, BatchLimits(max_jobs=4)):
        await broker.submit(jobs[0])
        await busy.wait()
        await submit(broker, *jobs[1:])
        gate.set()
        results = [await broker.result(each.id) for each in jobs]
    assert b"".join(result.payload for result in results) == b"ABCDEFG"
    assert sizes == [1, 4, 2]
    assert len(threads) == 1


async def test_stop_finishes_what_runs_and_leaves_the_rest(broker: Broker) -> None:
    busy, gate = threading.Event(), threading.Event()

    def handler(jobs: list[Job]) -> list[Outcome]:
        busy.set()
        assert gate.wait(5)
        return upper(jobs)

    one, two = job("a"), job("b")
    await submit(broker, one, two)
    async with working(broker, handler, BatchLimits(max_jobs=1)) as worker:
        await eventually(busy.is_set)
        worker.stop()
        gate.set()
        assert (await broker.result(one.id)).payload == b"A"
    assert (await broker.state(two.id)).status == "queued"


async def test_stop_can_empty_the_queue_first(broker: Broker) -> None:
    jobs = [job(c) for c in "abcd"]
    async with working(broker, upper, BatchLimits(max_jobs=1)) as worker:
        await asyncio.sleep(0.01)
        await submit(broker, *jobs)
        worker.stop(empty_queue=True)
        results = [await broker.result(each.id) for each in jobs]
    assert [result.payload for result in results] == [b"A", b"B", b"C", b"D"]


async def test_abandoned_work_is_handed_back(broker: Broker) -> None:
    busy, gate = threading.Event(), threading.Event()

    def handler(jobs: list[Job]) -> list[Outcome]:
        busy.set()
        assert gate.wait(5)
        return upper(jobs)

    one = job("a")
    await broker.submit(one)
    async with working(broker, handler) as worker:
        await eventually(busy.is_set)
        worker.stop()
        await worker.abandon()
        [again] = await broker.fetch("encoder", LIMITS)
        gate.set()
    assert (again.id, again.attempt) == (one.id, 1)


async def test_progress_and_previews_come_before_the_end(broker: Broker) -> None:
    def handler(jobs: list[Job]) -> list[Outcome]:
        for each in jobs:
            each.control.preview("image/png", b"png")
            for part in range(5):
                each.control.progress(part / 4, part=part)
        return upper(jobs)

    one = job("a")
    await broker.submit(one)
    async with working(broker, handler):
        await broker.result(one.id)
    events = await collect(broker, one.id)
    assert [event.name for event in events] == ["queued", "running", "preview", *["progress"] * 5, "done"]
    assert [event.data["part"] for event in events if event.name == "progress"] == [0, 1, 2, 3, 4]


async def test_a_running_handler_learns_of_a_cancellation(broker: Broker) -> None:
    busy, ended = threading.Event(), threading.Event()

    def handler(jobs: list[Job]) -> list[Outcome]:
        busy.set()
        until = time.monotonic() + 10
        try:
            while time.monotonic() < until:
                jobs[0].control.check()
                time.sleep(0.01)
        except JobCanceled:
            ended.set()
            raise
        return upper(jobs)

    one = job("a")
    async with working(broker, handler, BatchLimits(max_jobs=1)):
        await broker.submit(one)
        await eventually(busy.is_set)
        await broker.cancel(one.id)
        await eventually(ended.is_set, 3)
        with pytest.raises(JobCanceled):
            await broker.result(one.id)


@pytest.mark.parametrize("error", [MemoryError, type("OutOfMemoryError", (RuntimeError,), {})])
async def test_a_batch_too_big_for_memory_is_halved_once(broker: Broker, error: type[Exception]) -> None:
    sizes: list[int] = []

    def handler(jobs: list[Job]) -> list[Outcome]:
        sizes.append(len(jobs))
        if len(jobs) > 2 or any(each.payload == b"f" for each in jobs):
            raise error
        return upper(jobs)

    jobs = [job(c) for c in "abcf"]
    await submit(broker, *jobs)
    async with working(broker, handler):
        for each in jobs[:3]:
            assert (await broker.result(each.id)).payload == each.payload.upper()
        with pytest.raises(JobOutOfMemory):
            await broker.result(jobs[3].id)
    assert sizes == [4, 2, 2, 1, 1]


async def test_an_observer_sees_the_work(broker: Broker) -> None:
    seen: list[tuple[object, ...]] = []

    class Seer(Observer):
        def batch(self, step: str, task: str, size: int, seconds: float) -> None:
            seen.append((step, task, size))

        def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
            seen.append((job.payload, ending))

        def failed(self, step: str, job: Job, error: Exception) -> None:
            seen.append((job.payload, type(error)))

    def handler(jobs: list[Job]) -> list[Outcome]:
        by_name: dict[bytes, Outcome] = {b"b": CorruptBitstream("b"), b"c": KeyError("c")}
        return [by_name.get(each.payload) or Result(b"", "text/plain") for each in jobs]

    jobs = [job("a"), job("b"), job("c"), job("d", route=("encoder", "lmm"))]
    await submit(broker, *jobs)
    async with working(broker, handler, observer=Seer()):
        await eventually(lambda: len(seen) == 6)
    assert seen[0] == ("encoder", "", 4)
    assert (b"c", KeyError) in seen
    assert {(b"a", "done"), (b"b", "failed"), (b"c", "error"), (b"d", "moved")} <= set(seen)


async def test_two_workers_share_a_queue(make_broker: BrokerFactory) -> None:
    one = make_broker()
    brokers = [one, one if type(one).__name__ == "MemoryBroker" else make_broker()]
    jobs = [job(str(n)) for n in range(20)]
    ran: list[set[bytes]] = [set(), set()]

    def handler_of(index: int):  # type: ignore[no-untyped-def]
        def handler(some: list[Job]) -> list[Outcome]:
            ran[index] |= {each.payload for each in some}
            time.sleep(0.02)
            return upper(some)

        return handler

    async with (
        working(brokers[0], handler_of(0), BatchLimits(max_jobs=1)),
        working(brokers[1], handler_of(1), BatchLimits(max_jobs=1)),
    ):
        await submit(one, *jobs)
        for each in jobs:
            await one.result(each.id)
    assert ran[0]
    assert ran[1]
    assert not ran[0] & ran[1]


class Broken(Observer):
    """Fails at everything, as a log without a reader may."""

    def _fail(self, *_: object) -> None:
        raise BrokenPipeError

    fetched = batch = finished = failed = swept = _fail  # type: ignore[assignment]
    started = _fail  # type: ignore[assignment]


async def test_an_observer_that_fails_costs_no_job(broker: Broker) -> None:
    def handler(jobs: list[Job]) -> list[Outcome]:
        return [KeyError("c")] if jobs[0].payload == b"c" else upper(jobs)

    jobs = [job(c) for c in "abc"]
    async with working(broker, handler, BatchLimits(max_jobs=1), observer=Broken()):
        await submit(broker, *jobs)
        assert [(await broker.result(each.id)).payload for each in jobs[:2]] == [b"A", b"B"]
        with pytest.raises(JobFailed):
            await broker.result(jobs[2].id)


async def test_observers_that_fail_leave_others_alone() -> None:
    seen: list[str] = []

    class Seer(Observer):
        def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
            seen.append(ending)

    one = job()
    both = CombinedObserver(Broken(), Seer())
    with pytest.raises(ZeroDivisionError), both.started("encoder", [one]):
        raise ZeroDivisionError
    both.finished("encoder", one, Result(b"", "text/plain"), "done")
    assert seen == ["done"]


@pytest.mark.parametrize("odd", ["facts", "progress", "exit", "panic"])
async def test_whatever_a_handler_does_its_worker_goes_on(broker: Broker, odd: str) -> None:
    panic = type("PanicException", (BaseException,), {})

    def handler(jobs: list[Job]) -> list[Outcome]:
        if jobs[0].payload == b"b":
            return upper(jobs)
        if odd == "progress":
            jobs[0].control.progress(0.5, array=object())
            return upper(jobs)
        if odd == "facts":
            return [Result(b"", "text/plain", {"array": object()})]
        raise SystemExit(3) if odd == "exit" else panic("index out of bounds")

    one, two = job("a"), job("b")
    async with working(broker, handler, BatchLimits(max_jobs=1)):
        await submit(broker, one, two)
        if odd in ("exit", "panic") or (odd == "facts" and not isinstance(broker, MemoryBroker)):
            with pytest.raises(JobFailed):
                await asyncio.wait_for(broker.result(one.id), 10)
        else:
            await asyncio.wait_for(broker.result(one.id), 10)
        assert (await asyncio.wait_for(broker.result(two.id), 10)).payload == b"B"


async def test_a_broker_that_fails_in_an_unforeseen_way_is_asked_again() -> None:
    class Odd(MemoryBroker):
        lease_seconds = 0.2
        faults: ClassVar[dict[str, int]] = dict.fromkeys(("fetch", "renew", "publish", "sweep"), 2)

        def _fault(self, name: str) -> None:
            if self.faults[name]:
                self.faults[name] -= 1
                raise AttributeError(name)

        async def fetch(self, *args: Any, **options: Any) -> list[Job]:
            self._fault("fetch")
            return await super().fetch(*args, **options)

        async def renew(self, jobs: Sequence[Job]) -> set[str]:
            self._fault("renew")
            return await super().renew(jobs)

        async def publish(self, *args: Any) -> None:
            self._fault("publish")
            await super().publish(*args)

        async def sweep(self, step: str) -> Swept:
            self._fault("sweep")
            return await super().sweep(step)

    def handler(jobs: list[Job]) -> list[Outcome]:
        for part in range(4):
            jobs[0].control.progress(part / 4)
            time.sleep(0.08)
        return upper(jobs)

    odd, one = Odd(), job("a")
    async with working(odd, handler):
        await odd.submit(one)
        assert (await asyncio.wait_for(odd.result(one.id), 10)).payload == b"A"
        await eventually(lambda: not any(odd.faults.values()))
