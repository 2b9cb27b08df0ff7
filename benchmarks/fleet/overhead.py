# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What gateway, job store and worker add to calling the handler.

    python -m benchmarks.fleet.overhead KODAK [--crops 200] -> benchmarks/results/fleet/overhead.json

The same crops are encoded by the handler in a process of its own, and through HTTP by a fleet with one encoder. Handler
and worker have one core, everything else the other; both run torch with one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.fleet.common import crops, job_store, percentile, save
from picogram.fleet.processes import Fleet
from picogram.jobs import Job, Result

QUALITY = 30.0
CALLERS = 8


def direct(connection: Connection, images: list[bytes], core: int, rounds: int) -> None:
    """Seconds per job, by round, of the handler called one by one."""
    os.sched_setaffinity(0, {core})
    from picogram_encoder.encoder_handler import handler, warm_up

    warm_up()
    handler([Job("encode", images[0], ("encoder",), {"quality": QUALITY})])
    for _ in range(rounds):
        seconds = []
        for image in images:
            started = time.perf_counter()
            [outcome] = handler([Job("encode", image, ("encoder",), {"quality": QUALITY})])
            seconds.append(time.perf_counter() - started)
            assert isinstance(outcome, Result)
        connection.send(seconds)


async def post(http: httpx2.AsyncClient, image: bytes) -> float:
    """Seconds from request to answer."""
    started = time.perf_counter()
    answer = await http.post(
        "/v1/encode", params={"quality": QUALITY}, content=image, headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - started


async def alone(http: httpx2.AsyncClient, images: list[bytes]) -> list[float]:
    """One request at a time."""
    return [await post(http, image) for image in images]


async def together(http: httpx2.AsyncClient, images: list[bytes]) -> float:
    """Requests a second with some callers at a time."""
    left = iter(images)

    async def caller() -> None:
        for image in left:
            await post(http, image)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return len(images) / (time.perf_counter() - started)


async def served(url: str, images: list[bytes], rounds: int) -> tuple[list[list[float]], list[float]]:
    """Latencies and throughputs by round."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        await alone(http, images[:10])
        latencies = [await alone(http, images) for _ in range(rounds)]
        throughputs = [await together(http, images) for _ in range(rounds)]
    return latencies, throughputs


def measure(images: list[bytes], rounds: int) -> dict[str, Any]:
    """Direct first, then served, on the same core."""
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=direct, args=(there, images, last, rounds))
    process.start()
    plain: list[list[float]] = [here.recv() for _ in range(rounds)]
    process.join()
    os.sched_setaffinity(0, {first})
    with job_store() as server:
        fleet = Fleet(server.url, decoders=0, lmms=0, settings={"PICOGRAM_LOG_LEVEL": "warning"})
        fleet.start()
        try:
            worker = fleet.workers[0].child
            assert worker is not None
            os.sched_setaffinity(worker.pid, {last})
            fleet.wait_ready(120)
            latencies, throughputs = asyncio.run(served(fleet.url, images, rounds))
        finally:
            fleet.stop()
    calls = [len(images) / sum(seconds) for seconds in plain]
    p50_direct = percentile([each for some in plain for each in some], 0.5)
    p50_served = percentile([each for some in latencies for each in some], 0.5)
    return {
        "crops": len(images),
        "rounds": rounds,
        "direct_per_second": max(calls),
        "served_per_second": max(throughputs),
        "throughput_ratio": max(throughputs) / max(calls),
        "direct_p50_ms": 1000 * p50_direct,
        "served_p50_ms": 1000 * p50_served,
        "added_p50_ms": 1000 * (p50_served - p50_direct),
        "all_direct_per_second": calls,
        "all_served_per_second": throughputs,
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder or tar file with Kodak's pictures")
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    save("overhead", measure(crops(arguments.pictures, arguments.crops), arguments.rounds))


if __name__ == "__main__":
    main()
