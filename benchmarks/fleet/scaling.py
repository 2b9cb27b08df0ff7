# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Does the job store keep 1 to 64 workers busy? Workers that only sleep, so that a few cores can pretend to be 64.

    python -m benchmarks.fleet.scaling [--seconds 0.5] -> benchmarks/results/fleet/scaling.json

Efficiency is what N workers do divided by N times what one could do at most; also what a job costs the job store and
the callers in processor time, which is what the paper calculation in docs/operations.md rests on.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import time
from typing import Any

from pydantic import SecretStr

from benchmarks.fleet.common import job_store, save
from picogram.fleet.store_server import ValkeyServer
from picogram.jobs import BatchLimits, Broker, Job, Outcome, Result, Worker, open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker

PER_PROCESS = 16
PAYLOAD = bytes(20_000)
ANSWER = bytes(1_200)


def work(settings: QueueSettings, workers: int, seconds: float) -> None:
    """A process with some workers, each on a broker and in a thread of its own."""

    def sleep(jobs: list[Job]) -> list[Outcome]:
        time.sleep(seconds)
        return [Result(ANSWER, "application/octet-stream") for _ in jobs]

    async def run() -> None:
        limits = BatchLimits(max_jobs=1)
        await asyncio.gather(
            *(Worker(open_broker(settings), "encoder", sleep, limits).run() for _ in range(workers))
        )

    asyncio.run(run())


async def drive(broker: Broker, count: int, callers: int) -> float:
    """Seconds that ``count`` jobs take with ``callers`` waiting at a time."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            job = Job("encode", PAYLOAD, ("encoder",), deadline=time.time() + 120)
            await broker.submit(job)
            await broker.result(job.id)
            await broker.forget(job.id)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - started


async def measure(
    settings: QueueSettings, workers: int, seconds: float, server: ValkeyServer
) -> dict[str, Any]:
    """One number of workers, which are there already."""
    broker = open_broker(settings)
    assert isinstance(broker, RedisBroker)
    await drive(broker, 2 * workers, 2 * workers)  # warm
    count = workers * max(20, round(6 / seconds))
    before, cpu = resource.getrusage(resource.RUSAGE_SELF), await _store_cpu(broker)
    took = await drive(broker, count, 2 * workers)
    after = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "workers": workers,
        "jobs": count,
        "jobs_per_second": count / took,
        "efficiency": count / took / (workers / seconds),
        "caller_cpu_ms_per_job": 1000
        * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        / count,
        "store_cpu_ms_per_job": 1000 * (await _store_cpu(broker) - cpu) / count,
        "depth_at_the_end": await broker.depth("encoder"),
    }
    await broker.close()
    return found


async def _store_cpu(broker: RedisBroker) -> float:
    told = await broker.store.client.info("cpu")
    return float(told["used_cpu_sys"]) + float(told["used_cpu_user"])


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="what a job takes")
    arguments = parser.parse_args()
    rows = []
    for workers in (1, 2, 4, 8, 16, 32, 64):
        with job_store() as server:
            settings = QueueSettings(redis_url=SecretStr(server.url), queue_depth=1000)
            sizes = [min(PER_PROCESS, workers - start) for start in range(0, workers, PER_PROCESS)]
            context = multiprocessing.get_context("spawn")
            processes = [
                context.Process(target=work, args=(settings, size, arguments.seconds), daemon=True)
                for size in sizes
            ]
            for process in processes:
                process.start()
            rows.append(asyncio.run(measure(settings, workers, arguments.seconds, server)))
            for process in processes:
                process.terminate()
                process.join()
        print(rows[-1], flush=True)
    save("scaling", {"seconds_per_job": arguments.seconds, "rows": rows})


if __name__ == "__main__":
    main()
