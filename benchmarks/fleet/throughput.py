# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How many jobs a second go through the job store when the handler does nothing, and whether anything is left behind.

    python -m benchmarks.fleet.throughput [--jobs 100000] [--callers 64] -> benchmarks/results/fleet/throughput.json

One process submits and waits, another works, the job store is a third; the baseline is the in-process broker in the same
run. Memory of all three is read every tenth of the way: flat is what does not grow after the first.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import SecretStr

from benchmarks.fleet.common import job_store, resident_mb, save
from picogram.fleet.store_server import ValkeyServer
from picogram.jobs import BatchLimits, Broker, Job, MemoryBroker, Outcome, Result, Worker, open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker


@dataclass
class MemoryReading:
    """Where things stand after some jobs: megabytes of each process, and the store's own count."""

    jobs: int
    seconds: float
    caller_mb: float
    worker_mb: float
    store_process_mb: float
    store_used_mb: float


def nothing(jobs: list[Job]) -> list[Outcome]:
    """The handler: a new payload of the same size."""
    return [Result(bytes(len(job.payload)), "application/octet-stream") for job in jobs]


def work(settings: QueueSettings) -> None:
    """The worker's process, until it is terminated."""

    async def run() -> None:
        await Worker(open_broker(settings), "encoder", nothing, BatchLimits(max_jobs=16)).run()

    asyncio.run(run())


async def one_by_one(broker: Broker, count: int, callers: int, payload: bytes = bytes(1000)) -> None:
    """``callers`` at a time: submit, wait, forget."""
    left: Iterator[int] = iter(range(count))

    async def caller() -> None:
        for _ in left:
            job = Job("encode", payload, ("encoder",), deadline=time.time() + 120)
            await broker.submit(job)
            result = await broker.result(job.id)
            assert len(result.payload) == len(payload)
            await broker.forget(job.id)

    await asyncio.gather(*(caller() for _ in range(callers)))


def server_pid(server: ValkeyServer) -> int:
    """The store's process."""
    assert server._process is not None
    return server._process.pid


async def in_process(count: int, callers: int) -> float:
    """Jobs a second through the in-process broker."""
    broker = MemoryBroker(max_depth=10 * callers)
    worker = Worker(broker, "encoder", nothing, BatchLimits(max_jobs=16))
    working = asyncio.create_task(worker.run())
    started = time.perf_counter()
    await one_by_one(broker, count, callers)
    seconds = time.perf_counter() - started
    worker.stop()
    await working
    return count / seconds


async def through_store(
    settings: QueueSettings, server: ValkeyServer, worker: int, count: int, callers: int
) -> dict[str, Any]:
    """Jobs a second, memory over time, and what is left."""
    broker = open_broker(settings)
    assert isinstance(broker, RedisBroker)
    await one_by_one(broker, 500, callers)  # connections, scripts, and everybody warm
    readings: list[MemoryReading] = []
    started, cpu, own = time.perf_counter(), await _store_cpu(broker), time.process_time()
    for tenth in range(1, 11):
        await one_by_one(broker, count // 10, callers)
        used = (await broker.store.client.info("memory"))["used_memory"]
        readings.append(
            MemoryReading(
                tenth * (count // 10),
                time.perf_counter() - started,
                resident_mb("self"),
                resident_mb(worker),
                resident_mb(server_pid(server)),
                used / 2**20,
            )
        )
        print(asdict(readings[-1]), flush=True)
    caller_cpu, store_cpu = time.process_time() - own, await _store_cpu(broker) - cpu
    large = {}
    for size in (20_000, 500_000):
        cpu = await _store_cpu(broker)
        await one_by_one(broker, 500, 16, bytes(size))
        large[str(size)] = 1000 * (await _store_cpu(broker) - cpu) / 500
    keys = await broker.store.client.dbsize()
    left = await broker.depth("encoder")
    await broker.close()
    return {
        "jobs": count,
        "jobs_per_second": count / readings[-1].seconds,
        "caller_cpu_ms_per_job": 1000 * caller_cpu / count,
        "store_cpu_ms_per_job": 1000 * store_cpu / count,
        "store_cpu_ms_per_job_by_payload_in_and_out": large,
        "depth_at_the_end": left,
        "keys_at_the_end": keys,
        "readings": [asdict(each) for each in readings],
    }


async def _store_cpu(broker: RedisBroker) -> float:
    told = await broker.store.client.info("cpu")
    return float(told["used_cpu_sys"]) + float(told["used_cpu_user"])


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--callers", type=int, default=64)
    arguments = parser.parse_args()
    with job_store() as server:
        settings = QueueSettings(redis_url=SecretStr(server.url), queue_depth=10 * arguments.callers)
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(settings,), daemon=True)
        worker.start()
        try:
            assert worker.pid is not None
            found = asyncio.run(
                through_store(settings, server, worker.pid, arguments.jobs, arguments.callers)
            )
        finally:
            worker.terminate()
            worker.join()
    found["in_process_jobs_per_second"] = asyncio.run(in_process(20_000, arguments.callers))
    found["ratio_to_in_process"] = found["jobs_per_second"] / found["in_process_jobs_per_second"]
    save("throughput", found)


if __name__ == "__main__":
    main()
