# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of every broker."""

from __future__ import annotations

import asyncio
import time

import pytest
from brokers import LIMITS, BrokerFactory, collect, job, names, submit, upper, working

from picogram.errors import (
    CorruptBitstream,
    JobCanceled,
    JobConflict,
    JobFailed,
    JobTimeout,
    JobUnknown,
    QueueFull,
)
from picogram.jobs import BatchLimits, Broker, Job, MemoryBroker, Result, WorkerInfo


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
    [first] = await broker.fetch("encoder", BatchLimits(max_jobs=1))
    assert await broker.depth("encoder") == 2
    with pytest.raises(QueueFull):
        await broker.submit(job("c"))
    await broker.submit(job("d", route=("decoder",)))
    await broker.finish(first, Result(b"", "text/plain"))
    await broker.submit(job("c"))


async def test_batches_are_bounded_by_count_and_keep_the_order(broker: Broker) -> None:
    await submit(broker, *(job(c) for c in "abcde"))
    batches = [await broker.fetch("encoder", BatchLimits(max_jobs=2)) for _ in range(3)]
    assert [names(batch) for batch in batches] == ["ab", "cd", "e"]


async def test_batches_are_bounded_by_cost_but_a_big_job_runs_alone(broker: Broker) -> None:
    await submit(broker, *(job(c, cost=n) for c, n in zip("abcd", (9, 3, 2, 1), strict=True)))
    batches = [await broker.fetch("encoder", BatchLimits(max_cost=5)) for _ in range(3)]
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
    slow = job("a", deadline=time.time() + 0.2)
    await broker.submit(slow)
    [fetched] = await broker.fetch("encoder", LIMITS)
    with pytest.raises(JobTimeout):
        await broker.result(slow.id)
    assert (await broker.state(slow.id)).status == "failed"
    assert await broker.renew([fetched]) == {slow.id}
    assert not await broker.finish(fetched, Result(b"late", "text/plain"))
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
    assert await broker.depth("encoder") == 1
    assert names(await broker.fetch("encoder", LIMITS)) == "b"


async def test_cancel_while_running(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    waiting = asyncio.create_task(broker.result(one.id))
    [fetched] = await broker.fetch("encoder", LIMITS)
    await asyncio.sleep(0)
    assert await broker.cancel(one.id)
    assert await broker.renew([fetched]) == {one.id}
    assert not await broker.finish(fetched, Result(b"late", "text/plain"))
    with pytest.raises(JobCanceled):
        await waiting


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
    both = [job(c, route=("lmm:code", "encoder", "lmm:read")) for c in "ab"]
    await submit(broker, *both)
    for step in ("lmm", "encoder"):
        for each in await broker.fetch(step, LIMITS):
            await broker.finish(each, Result(each.payload, "text/plain"))
    one, two = await broker.fetch("lmm", LIMITS)
    assert (one.task, two.task) == ("read", "read")
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


async def test_a_waiter_that_goes_away_leaves_the_job_alone(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    waiting = asyncio.create_task(broker.result(one.id))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with working(broker, upper):
        assert (await broker.result(one.id)).payload == b"A"


async def test_a_result_may_be_asked_for_again_until_it_is_forgotten(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    with pytest.raises(TimeoutError):
        await broker.result(one.id, wait=0.02)
    await broker.forget(one.id)  # it is not finished, so nothing happens
    async with working(broker, upper):
        first = await broker.result(one.id)
    assert await broker.result(one.id, wait=0) == first
    await broker.forget(one.id)
    for question in (
        broker.result(one.id),
        broker.state(one.id),
        broker.cancel(one.id),
        collect(broker, one.id),
    ):
        with pytest.raises(JobUnknown):
            await question


@pytest.mark.parametrize("stranger", ["0" * 32, "", "../x", "a:b", "*", "0" * 10_000])
async def test_unknown_jobs_are_unknown_whatever_they_are_called(broker: Broker, stranger: str) -> None:
    for question in (broker.result(stranger), broker.state(stranger), broker.cancel(stranger)):
        with pytest.raises(JobUnknown):
            await question


async def test_results_expire(make_broker: BrokerFactory) -> None:
    broker = make_broker(result_ttl_seconds=0.1)
    one = job("a", key="k")
    await broker.submit(one)
    async with working(broker, upper):
        await broker.result(one.id)
    await asyncio.sleep(0.2)
    with pytest.raises(JobUnknown):
        await broker.state(one.id)
    again = job("a", key="k")
    assert await broker.submit(again) == again.id


async def test_states_on_the_way(broker: Broker) -> None:
    one = job("a", route=("lmm:code", "encoder"), owner="me", priority="high", deadline=time.time() + 60)
    await broker.submit(one)
    state = await broker.state(one.id)
    assert (state.status, state.step, state.owner, state.priority) == ("queued", "lmm:code", "me", "high")
    assert state.deadline == pytest.approx(one.deadline)
    [fetched] = await broker.fetch("lmm", LIMITS)
    await broker.publish(fetched, "progress", {"step": "lmm:code", "fraction": 0.5})
    state = await broker.state(one.id)
    assert (state.status, state.progress, state.attempt) == ("running", 0.5, 1)
    await broker.finish(fetched, Result(b"b", "text/plain"))
    state = await broker.state(one.id)
    assert (state.status, state.step, state.progress, state.attempt) == ("queued", "encoder", 0.0, 0)
    [fetched] = await broker.fetch("encoder", LIMITS)
    await broker.finish(fetched, CorruptBitstream("odd bits"))
    state = await broker.state(one.id)
    assert (state.status, state.final) == ("failed", True)
    assert isinstance(state.error, CorruptBitstream)
    assert str(state.error) == "odd bits"


async def test_what_went_wrong_inside_stays_inside(broker: Broker) -> None:
    one = job("a")
    await broker.submit(one)
    [fetched] = await broker.fetch("encoder", LIMITS)
    await broker.finish(fetched, ValueError("a secret"))
    with pytest.raises(JobFailed) as failure:
        await broker.result(one.id)
    assert "secret" not in str(failure.value)


async def test_events_tell_the_story_and_can_be_resumed(broker: Broker) -> None:
    one = job("a", route=("lmm", "encoder"))
    await broker.submit(one)
    watching = asyncio.create_task(collect(broker, one.id))
    for step in ("lmm", "encoder"):
        [fetched] = await broker.fetch(step, LIMITS)
        await broker.publish(fetched, "progress", {"step": step, "fraction": 0.25})
        await broker.publish(fetched, "preview", {"step": step, "media_type": "image/png", "data": b"\0png"})
        await broker.finish(fetched, Result(b"b", "text/plain"))
    events = await asyncio.wait_for(watching, 5)
    told = [event.name for event in events]
    assert [name for name in told if name != "preview"] == [*["queued", "running", "progress"] * 2, "done"]
    assert [event.data["step"] for event in events if event.name == "queued"] == ["lmm", "encoder"]
    last = next(event for event in reversed(events) if event.name == "preview")
    assert last.data == {"step": "encoder", "media_type": "image/png", "data": "AHBuZw=="}
    rest = await collect(broker, one.id, after=events[2].id)
    assert rest == [event for event in events[3:] if event in rest]
    assert [event.name for event in rest if event.name != "preview"] == [
        "queued",
        "running",
        "progress",
        "done",
    ]
    assert await collect(broker, one.id, after=events[-1].id) == []


async def test_events_of_a_failed_and_a_canceled_job_end(broker: Broker) -> None:
    one, two = job("a"), job("b")
    await submit(broker, one, two)
    await broker.cancel(two.id)
    [fetched] = await broker.fetch("encoder", LIMITS)
    await broker.finish(fetched, CorruptBitstream("odd bits"))
    failed, canceled = (await collect(broker, one.id))[-1], (await collect(broker, two.id))[-1]
    assert (failed.name, failed.data["slug"], failed.data["detail"]) == (
        "failed",
        "corrupt-bitstream",
        "odd bits",
    )
    assert (canceled.name, canceled.data["slug"]) == ("canceled", "job-canceled")


async def test_a_key_gives_the_same_job_to_the_same_owner_only(broker: Broker) -> None:
    one, again = job("a", owner="x", key="k", fingerprint="f"), job("a", owner="x", key="k", fingerprint="f")
    assert await broker.submit(one) == one.id
    assert await broker.submit(again) == one.id
    with pytest.raises(JobConflict):
        await broker.submit(job("b", owner="x", key="k", fingerprint="g"))
    other = job("b", owner="y", key="k", fingerprint="g")
    assert await broker.submit(other) == other.id
    assert await broker.depth("encoder") == 2
    async with working(broker, upper):
        assert (await broker.result(one.id)).payload == b"A"
        assert await broker.submit(job("a", owner="x", key="k", fingerprint="f")) == one.id


async def test_a_known_key_is_known_even_when_the_queue_is_full(make_broker: BrokerFactory) -> None:
    broker = make_broker(max_depth=1)
    one = job("a", key="k")
    await broker.submit(one)
    assert await broker.submit(job("a", key="k")) == one.id
    with pytest.raises(QueueFull):
        await broker.submit(job("b"))


async def test_high_priority_goes_first_and_counts_apart(broker: Broker) -> None:
    await submit(broker, job("a"), job("b", priority="high"), job("c"), job("d", priority="high"))
    assert (await broker.depth("encoder"), await broker.depth("encoder", "high")) == (4, 2)
    assert [names(await broker.fetch("encoder", BatchLimits(max_jobs=2))) for _ in range(2)] == ["bd", "ac"]


async def test_what_is_handed_back_is_next_and_its_attempt_does_not_count(broker: Broker) -> None:
    await submit(broker, *(job(c) for c in "abcd"))
    batch = await broker.fetch("encoder", BatchLimits(max_jobs=3))
    await broker.finish(batch[0], Result(b"", "text/plain"))
    await broker.release(batch[1:])
    assert (await broker.state(batch[1].id)).status == "queued"
    again = await broker.fetch("encoder", LIMITS)
    assert await broker.depth("encoder") == 3
    assert not await broker.finish(batch[1], Result(b"", "text/plain"))
    assert names(again) == "bcd"
    assert [each.attempt for each in again] == [1, 1, 1]


async def test_linger_lets_a_batch_grow(broker: Broker) -> None:
    fetching = asyncio.create_task(broker.fetch("encoder", BatchLimits(linger_seconds=0.3)))
    await asyncio.sleep(0.05)
    await broker.submit(job("a"))
    await asyncio.sleep(0.05)
    await broker.submit(job("b"))
    assert names(await fetching) == "ab"


async def test_workers_are_known_while_they_give_signs_of_life(broker: Broker) -> None:
    assert await broker.workers() == []
    worker = WorkerInfo("w1", "encoder", "1.0", 12.5, {"models": ["latent-2"]})
    await broker.announce(worker)
    await broker.announce(worker)
    assert await broker.workers() == [worker]


async def test_everything_about_a_job_travels(broker: Broker) -> None:
    one = job(
        "a", options={"bytes": 9, "caption": "naïve \n ✓"}, compatibility="x", cost=7, trace="00-ab-cd-01", owner="me",
        deadline=time.time() + 60, fingerprint="f", facts={"n": [1, {"m": None}]}, warnings=("w",), timings={"run": 0.5},
    )  # fmt: skip
    await broker.submit(one)
    [fetched] = await broker.fetch("encoder", LIMITS)
    assert fetched == one


async def test_a_big_payload_travels(broker: Broker) -> None:
    one = Job("encode", bytes(range(256)) * 20_000, ("encoder",))
    await broker.submit(one)
    [fetched] = await broker.fetch("encoder", LIMITS)
    assert fetched.payload == one.payload
    await broker.finish(fetched, Result(fetched.payload[::-1], "text/plain"))
    assert (await broker.result(one.id)).payload == one.payload[::-1]


async def test_waiting_payloads_within_the_process_are_bounded() -> None:
    broker = MemoryBroker(max_depth=32, max_result_bytes=1000)
    await submit(broker, job("a" * 600), job("b" * 300))
    with pytest.raises(QueueFull, match="bytes"):
        await broker.submit(job("c" * 200))
    await broker.fetch("encoder", LIMITS)
    await broker.submit(job("c" * 200))


async def test_a_state_past_its_deadline_is_failed_even_if_nobody_waits(broker: Broker) -> None:
    one = job("a", deadline=time.time() + 0.1)
    await broker.submit(one)
    await asyncio.sleep(0.15)
    state = await broker.state(one.id)
    assert (state.status, type(state.error)) == ("failed", JobTimeout)
