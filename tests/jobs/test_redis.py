# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What only a job store that outlives processes has to get right: crashes, lost leases, restarts, and tidiness."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import LIMITS, collect, eventually, job, names, submit, upper, working
from pydantic import SecretStr
from redis.asyncio import Redis
from valkey_server import ValkeyServer, running_server

from picogram.cli.main import main
from picogram.errors import BrokerUnavailable, JobAbandoned, JobFailed, JobUnknown, QueueFull
from picogram.jobs import BatchLimits, Result, WorkerInfo, open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker
from picogram.jobs.redis.key_names import GROUP, Keys
from picogram.jobs.redis.letters import DeadLetters


@asynccontextmanager
async def brokers(server: ValkeyServer, count: int = 2, **settings: Any) -> AsyncIterator[list[RedisBroker]]:
    """Brokers of one fleet, each as if it had a process of its own."""
    fields = {"redis_url": server.url, "queue_prefix": f"t{uuid.uuid4().hex[:8]}", **settings}
    made = [open_broker(QueueSettings(**fields)) for _ in range(count)]
    assert all(isinstance(each, RedisBroker) for each in made)
    try:
        yield made  # type: ignore[misc]
    finally:
        for each in made:
            await each.close()


def raw(broker: RedisBroker) -> tuple[Redis, Keys]:
    return broker.store.client, broker.store.keys


async def test_jobs_of_a_silent_worker_go_to_another_and_the_late_one_is_refused(
    valkey: ValkeyServer,
) -> None:
    async with brokers(valkey, lease_seconds=0.3) as (lost, heir):
        one = job("a")
        await lost.submit(one)
        [mine] = await lost.fetch("encoder", LIMITS)
        assert (await heir.sweep("encoder")).reclaimed == 0
        await asyncio.sleep(0.35)
        assert (await heir.sweep("encoder")).reclaimed == 1
        [theirs] = await heir.fetch("encoder", LIMITS)
        assert (theirs.id, theirs.attempt, theirs.payload) == (one.id, 2, b"a")
        assert await lost.renew([mine]) == {one.id}
        assert not await lost.finish(mine, Result(b"late", "text/plain"))
        assert await heir.finish(theirs, Result(b"right", "text/plain"))
        assert (await lost.result(one.id)).payload == b"right"
        assert await heir.fetch("encoder", LIMITS, wait=0) == []
        assert await heir.depth("encoder") == 0


async def test_renewed_leases_hold_however_long_the_work_takes(valkey: ValkeyServer) -> None:
    ran: list[str] = []

    def slow(jobs: list[Any]) -> list[Any]:
        ran.extend(each.id for each in jobs)
        time.sleep(1.2)
        return upper(jobs)

    async with brokers(valkey, lease_seconds=0.3) as (one, two):
        only = job("a")
        async with working(one, slow), working(two, slow):
            await one.submit(only)
            assert (await two.result(only.id)).payload == b"A"
    assert ran == [only.id]


async def test_a_job_that_kills_its_workers_is_given_up(valkey: ValkeyServer) -> None:
    async with brokers(valkey, lease_seconds=0.2, max_attempts=2) as (one, two):
        poison = job("a")
        await one.submit(poison)
        for _ in range(2):
            assert await one.fetch("encoder", LIMITS)
            await asyncio.sleep(0.25)
            swept = await two.sweep("encoder")
        assert (swept.reclaimed, swept.dead) == (0, 1)
        with pytest.raises(JobAbandoned, match="2 attempts"):
            await one.result(poison.id)
        assert (await collect(one, poison.id))[-1].data["slug"] == "job-abandoned"
        client, keys = raw(one)
        letters: Any = await client.xrange(keys.dead("encoder"))
        [(_, letter)] = letters
        assert (letter[b"id"].decode(), letter[b"attempts"]) == (poison.id, b"2")
        assert await one.fetch("encoder", LIMITS, wait=0) == []
        assert await one.depth("encoder") == 0


async def test_a_job_whose_worker_died_runs_alone_and_takes_no_other_with_it(valkey: ValkeyServer) -> None:
    async with brokers(valkey, lease_seconds=0.3, max_attempts=2) as (one, two):
        await submit(one, *(job(c) for c in "abc"))
        assert names(await one.fetch("encoder", LIMITS)) == "abc"
        await asyncio.sleep(0.35)
        await two.sweep("encoder")
        await submit(one, job("d"), job("e"))
        batches = [await two.fetch("encoder", LIMITS, wait=0) for _ in range(5)]
        assert sorted(map(names, batches)) == ["", "a", "b", "c", "de"]


async def test_a_worker_killed_in_the_act_loses_nothing(valkey: ValkeyServer, tmp_path: Path) -> None:
    async with brokers(valkey, 1, lease_seconds=0.5) as [broker]:
        client, keys = raw(broker)
        script = tmp_path / "victim.py"
        script.write_text(
            "import asyncio, time\nfrom picogram.jobs import Worker, open_broker\n"
            "from picogram.jobs.queue_settings import QueueSettings\n"
            "def hang(jobs):\n    print('busy', flush=True)\n    time.sleep(60)\n"
            f"settings = QueueSettings(redis_url={valkey.url!r}, queue_prefix={keys.prefix!r}, lease_seconds=0.5)\n"
            "async def main():\n    await Worker(open_broker(settings), 'encoder', hang).run()\nasyncio.run(main())\n"
        )
        jobs = [job(c) for c in "abc"]
        await submit(broker, *jobs)
        victim = await asyncio.create_subprocess_exec(sys.executable, script, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout
        await victim.stdout.readline()
        victim.kill()
        await victim.communicate()
        async with working(broker, upper):
            results = [await asyncio.wait_for(broker.result(each.id), 10) for each in jobs]
        assert [result.payload for result in results] == [b"A", b"B", b"C"]
        assert await client.xlen(keys.queue("encoder", "normal")) == 0


async def test_what_is_handed_back_wakes_an_idle_worker(valkey: ValkeyServer) -> None:
    async with brokers(valkey) as (one, two):
        await one.submit(job("a"))
        held = await one.fetch("encoder", LIMITS)
        idle = asyncio.create_task(two.fetch("encoder", LIMITS, wait=5))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await one.release(held)
        assert names(await idle) == "a"
        assert time.monotonic() - started < 0.4


async def test_jobs_that_do_not_fit_a_batch_are_left_to_others(valkey: ValkeyServer) -> None:
    async with brokers(valkey) as (one, two):
        await submit(one, *(job(c, compatibility=k) for c, k in zip("abcd", "xyxy", strict=True)))
        first = await one.fetch("encoder", LIMITS)
        second = await two.fetch("encoder", LIMITS, wait=0)
        assert (names(first), names(second)) == ("ac", "bd")
        assert [each.attempt for each in second] == [1, 1]


async def test_jobs_queued_before_any_worker_came_are_done(valkey: ValkeyServer) -> None:
    async with brokers(valkey) as (one, two):
        await one.submit(job("a"))
        assert names(await two.fetch("encoder", LIMITS)) == "a"


async def test_nothing_is_left_of_finished_jobs_and_departed_workers(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1) as [watcher]:
        client, keys = raw(watcher)
        leaving = open_broker(QueueSettings(redis_url=SecretStr(valkey.url), queue_prefix=keys.prefix))
        jobs = [job(c, route=("lmm", "encoder"), key=c) for c in "abcd"]
        await submit(leaving, *jobs)
        for step in ("lmm", "encoder"):
            for each in await leaving.fetch(step, LIMITS):
                await leaving.finish(each, Result(each.payload * 2, "text/plain"))
        for each in jobs:
            await leaving.result(each.id)
            await leaving.forget(each.id)
        await leaving.close()
        kept = {key.decode() async for key in client.scan_iter(f"{keys.prefix}:*")}
        assert kept == {keys.queue(step, "normal") for step in ("lmm", "encoder")} | {
            keys.queue(step, "high") for step in ("lmm", "encoder")
        }
        assert await client.xlen(keys.queue("encoder", "normal")) == 0
        consumers = await client.xinfo_consumers(keys.queue("encoder", "normal"), GROUP)
        assert [each["name"] for each in consumers] == []


async def test_everything_but_queues_expires(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1) as [broker]:
        client, keys = raw(broker)
        await submit(broker, job("a", deadline=time.time() + 5, key="k"), job("b"))
        [one] = await broker.fetch("encoder", BatchLimits(max_jobs=1))
        await broker.finish(one, Result(b"a", "text/plain"))
        lives = {key.decode(): await client.ttl(key) async for key in client.scan_iter(f"{keys.prefix}:*")}
        assert all(0 < ttl <= 24 * 3600 + 601 for key, ttl in lives.items() if ":queue:" not in key)
        assert len(lives) > 6


async def test_a_payload_that_has_expired_fails_its_job_alone(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1) as [broker]:
        client, keys = raw(broker)
        one, two = job("a"), job("b")
        await broker.submit(one)
        [blob] = [key async for key in client.scan_iter(keys.blob("*"))]
        await client.delete(blob)
        await broker.submit(two)
        assert names(await broker.fetch("encoder", LIMITS)) == "b"
        with pytest.raises(JobUnknown, match="payload"):
            await broker.result(one.id)


async def test_a_job_of_another_version_fails_and_the_worker_goes_on(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1) as [broker]:
        client, keys = raw(broker)
        one, two = job("a"), job("b")
        await submit(broker, one)
        queue = keys.queue("encoder", "normal")
        entries: Any = await client.xrange(queue)
        [(entry, fields)] = entries
        await client.xdel(queue, entry)
        await client.xadd(queue, {**fields, b"envelope": fields[b"envelope"].replace(b'"v":1', b'"v":99')})
        await submit(broker, two)
        assert names(await broker.fetch("encoder", LIMITS)) == "b"
        with pytest.raises(JobFailed, match="another version"):
            await broker.result(one.id)


async def test_payloads_can_lie_in_a_folder(valkey: ValkeyServer, tmp_path: Path) -> None:
    async with brokers(valkey, blob_url=f"file://{tmp_path}/blobs", result_ttl_seconds=60) as (one, two):
        first, second = job("a", deadline=time.time() + 60), job("b", deadline=time.time() + 60)
        await submit(one, first, second)
        async with working(two, upper):
            assert (await one.result(first.id)).payload == b"A"
            await one.result(second.id)
        await one.forget(first.id)
        assert len(list((tmp_path / "blobs").iterdir())) == 1
        for path in (tmp_path / "blobs").iterdir():
            assert path.stat().st_mtime > time.time()


async def test_a_full_store_refuses_jobs_and_goes_on(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with brokers(server, 1) as [broker]:
            client, _ = raw(broker)
            await client.config_set("maxmemory", "4mb")
            held = [job("x" * 500_000) for _ in range(16)]
            with pytest.raises(QueueFull, match="store"):
                await submit(broker, *held)
            waiting = await broker.depth("encoder")
            async with working(broker, lambda jobs: [Result(b"", "text/plain") for _ in jobs]):
                for each in held[:waiting]:
                    await broker.result(each.id)
                await broker.submit(held[-1])
                await broker.result(held[-1].id)
            assert 0 < waiting < 16


async def test_a_store_that_restarts_is_found_again(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with brokers(server, 2) as (caller, worker):
            one, two = job("a"), job("b")
            await caller.submit(one)
            server.stop()
            with pytest.raises(BrokerUnavailable):
                await caller.submit(two)
            async with working(worker, upper):
                await asyncio.sleep(0.2)
                server.start()
                assert (await asyncio.wait_for(caller.result(one.id), 10)).payload == b"A"
                await caller.submit(two)
                server.restart()
                assert (await asyncio.wait_for(again(caller, two.id), 10)).payload == b"B"


async def again(broker: RedisBroker, job_id: str) -> Result:
    """As the gateway waits: a store that is away for a moment does not end the wait."""
    while True:
        try:
            return await broker.result(job_id)
        except BrokerUnavailable:
            await asyncio.sleep(0.1)


async def test_jobs_given_by_an_answer_that_got_lost_are_found_again(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1) as [broker]:
        await submit(broker, job("a"), job("b"))
        [held] = await broker.fetch("encoder", BatchLimits(max_jobs=1))
        take = broker._take

        async def lossy(*arguments: Any, **options: Any) -> list[Any]:
            for each in await take(*arguments, **options):
                del broker._leases[each.control]
            raise BrokerUnavailable("the answer got lost")

        broker._take = lossy  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await broker.fetch("encoder", LIMITS)
        broker._take = take  # type: ignore[method-assign]
        again = await broker.fetch("encoder", LIMITS, wait=0)
        assert (names([held]), names(again), again[0].attempt) == ("a", "b", 1)


async def test_a_store_that_lost_everything_can_be_worked_with(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with brokers(server, 1) as [broker]:
            client, _ = raw(broker)
            async with working(broker, upper):
                await broker.submit(job("a"))
                await client.flushall()
                await client.script_flush()
                one = job("b")
                await broker.submit(one)
                assert (await asyncio.wait_for(broker.result(one.id), 10)).payload == b"B"


async def test_a_result_is_heard_of_by_whoever_did_not_submit_the_job(valkey: ValkeyServer) -> None:
    async with brokers(valkey) as (one, two):
        first = job("a")
        await one.submit(first)
        waiting = asyncio.create_task(two.result(first.id))
        async with working(one, upper):
            assert (await asyncio.wait_for(waiting, 5)).payload == b"A"


async def test_silent_consumers_are_removed_but_never_with_jobs(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1, lease_seconds=0.2) as [broker]:
        client, keys = raw(broker)
        await submit(broker, job("a"))
        queue = keys.queue("encoder", "normal")
        await broker.fetch("encoder", LIMITS)
        await client.xgroup_createconsumer(queue, GROUP, "idle")
        await asyncio.sleep(0.05)
        await broker.store.call(
            "sweep",
            [*keys.queues("encoder"), keys.dead("encoder"), keys.sweep("encoder")],
            [10_000, 3, time.time(), 1000, 20, 100],
        )
        left = {each["name"].decode() for each in await client.xinfo_consumers(queue, GROUP)}
        assert left == {broker.store.name}


async def test_many_waiters_share_a_connection(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 2, queue_depth=500) as (caller, worker):
        jobs = [job(str(n)) for n in range(200)]
        await submit(caller, *jobs)
        waiting = [asyncio.create_task(caller.result(each.id)) for each in jobs]
        await asyncio.sleep(0.1)
        client, _ = raw(caller)
        clients = [each for each in await client.client_list() if each["cmd"].startswith("subscribe")]
        async with working(worker, upper):
            results = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert [result.payload for result in results] == [str(n).encode() for n in range(200)]
        assert len(clients) <= 3
        await eventually(lambda: not caller._endings._ended)


async def test_dead_letters_can_be_read_tried_again_and_dropped(valkey: ValkeyServer) -> None:
    async with brokers(valkey, 1, lease_seconds=0.2, max_attempts=1) as [broker]:
        await submit(broker, job("a"), job("b"))
        await broker.fetch("encoder", LIMITS)
        await asyncio.sleep(0.25)
        assert (await broker.sweep("encoder")).dead == 2
        letters = DeadLetters(broker, "encoder")
        first, second = [letter async for letter in letters.read()]
        assert (first.kind, first.step, first.attempts) == ("encode", "encoder", 1)
        again = await letters.retry(first)
        await letters.drop(second)
        assert [letter async for letter in letters.read()] == []
        async with working(broker, upper):
            assert (await broker.result(again)).payload == b"A"
        with pytest.raises(JobUnknown, match="expired"):
            await letters.retry(second)


def test_the_command_line_shows_queues_and_dead_letters(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PICOGRAM_QUEUE_PREFIX", f"t{uuid.uuid4().hex[:8]}")
    monkeypatch.setenv("PICOGRAM_REDIS_URL", "")
    monkeypatch.setenv("PICOGRAM_LEASE_SECONDS", "0.2")
    monkeypatch.setenv("PICOGRAM_MAX_ATTEMPTS", "1")

    async def die() -> str:
        broker = open_broker(QueueSettings(redis_url=SecretStr(valkey.url)))
        poison = job("a")
        await submit(broker, poison, job("b", route=("decoder",), priority="high"))
        await broker.announce(WorkerInfo("w1", "decoder", "1.0", time.time()))
        await broker.fetch("encoder", LIMITS)
        await asyncio.sleep(0.25)
        await broker.sweep("encoder")
        await broker.close()
        return poison.id

    poison = asyncio.run(die())
    assert main(["queue", "status", "--redis", valkey.url]) == 0
    told = capsys.readouterr().out
    assert "decoder    1 queued or running (1 high, 0 normal), 1 workers, 0 dead" in told
    assert "1 dead" in told
    assert main(["queue", "dead", "encoder", "--drop"]) == 0
    assert poison in capsys.readouterr().out
    assert main(["queue", "dead", "encoder"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["queue", "dead", "elsewhere"]) == 2
    assert main(["queue", "status", "--redis", "redis://127.0.0.1:1/0"]) == 6
