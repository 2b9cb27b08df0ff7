# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A long load: does anything fail, slow down or grow?

    python -m benchmarks.fleet.load_test KODAK [--minutes 30] [--share 0.8] -> benchmarks/results/fleet/load.json

First the capacity is measured with eight callers for 30 seconds; then requests arrive at random (Poisson) at a share
of it, whether or not earlier ones are answered. Most encode or decode a picture, some read a file's header. Latency is
counted from the moment a request was due. By minute: requests, errors, latency, memory of every process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.fleet.common import cpu_seconds, crops, job_store, percentile, resident_mb, save
from picogram.bitstream import MEDIA_TYPE
from picogram.fleet.processes import Fleet
from picogram.fleet.store_server import ValkeyServer

Request = tuple[str, str, bytes]


async def prepare(http: httpx2.AsyncClient, images: list[bytes]) -> list[Request]:
    """The mix of requests."""
    found: list[Request] = []
    for image in images:
        path = "/v1/encode?quality=30"
        answer = await http.post(path, content=image, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text
        found += [(path, "image/png", image), ("/v1/decode", MEDIA_TYPE, answer.content)]
    some = found[1::2][::5]
    return found + [("/v1/inspect", media_type, body) for _, media_type, body in some]


async def send(http: httpx2.AsyncClient, request: Request) -> str:
    """The status, or what kept it from coming."""
    path, media_type, body = request
    try:
        answer = await http.post(path, content=body, headers={"Content-Type": media_type})
    except httpx2.TransportError as error:
        return type(error).__name__
    return str(answer.status_code)


async def capacity(http: httpx2.AsyncClient, mix: list[Request], seconds: float) -> float:
    """Requests a second with eight callers."""
    until, done = time.perf_counter() + seconds, 0
    dice = random.Random(0)

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            assert await send(http, dice.choice(mix)) == "200"
            done += 1

    await asyncio.gather(*(caller() for _ in range(8)))
    return done / seconds


class Minute:
    """What happened in one."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def told(self, number: int, memory: dict[str, float]) -> dict[str, Any]:
        """As it goes into the results."""
        return {
            "minute": number,
            "statuses": dict(self.statuses),
            "p50_ms": round(1000 * percentile(self.seconds, 0.5), 1),
            "p99_ms": round(1000 * percentile(self.seconds, 0.99), 1),
            "memory_mb": memory,
        }


async def sustain(
    http: httpx2.AsyncClient, mix: list[Request], rate: float, minutes: int, memory: Any
) -> list[dict[str, Any]]:
    """Requests at random times; a row per minute."""
    dice, rows = random.Random(1), []
    for number in range(1, minutes + 1):
        minute, tasks = Minute(), set[asyncio.Task[None]]()
        due = time.perf_counter()
        end = due + 60

        async def one(request: Request, at: float, into: Minute) -> None:
            into.statuses[await send(http, request)] += 1
            into.seconds.append(time.perf_counter() - at)

        while (due := due + dice.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.add(asyncio.create_task(one(dice.choice(mix), due, minute)))
        await asyncio.gather(*tasks)
        rows.append(minute.told(number, memory()))
        print(rows[-1], flush=True)
    return rows


async def run(
    fleet: Fleet, server: ValkeyServer, images: list[bytes], minutes: int, share: float
) -> dict[str, Any]:
    """Capacity, then the load."""
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=60, limits=limits) as http:
        mix = await prepare(http, images)
        await capacity(http, mix, 10)
        most = await capacity(http, mix, 30)
        pids = {process.name: process.child.pid for process in fleet.processes if process.child}

        def memory() -> dict[str, float]:
            return {name: round(resident_mb(pid), 1) for name, pid in pids.items()}

        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        rows = await sustain(http, mix, share * most, minutes, memory)
        used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    statuses: Counter[str] = Counter()
    for row in rows:
        statuses.update(row["statuses"])
    return {
        "capacity_per_second": most,
        "rate_per_second": share * most,
        "minutes": minutes,
        "requests": sum(statuses.values()),
        "statuses": dict(statuses),
        "cpu_ms_per_request": {
            name: 1000 * seconds / max(1, sum(statuses.values())) for name, seconds in used.items()
        },
        "errors": sum(count for status, count in statuses.items() if status != "200"),
        "p99_ms_first_and_last_third": [
            _median_p99(rows[: len(rows) // 3]),
            _median_p99(rows[-(len(rows) // 3) :]),
        ],
        "memory_mb_after_a_tenth_and_at_the_end": [rows[len(rows) // 10]["memory_mb"], rows[-1]["memory_mb"]],
        "rows": rows,
    }


def _median_p99(rows: list[dict[str, Any]]) -> float:
    return percentile([float(row["p99_ms"]) for row in rows], 0.5) if rows else 0.0


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder or tar file with Kodak's pictures")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.8)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    images = crops(arguments.pictures, 24, 192, 128)
    with job_store() as server:
        fleet = Fleet(server.url, lmms=0, settings={"PICOGRAM_LOG_LEVEL": "warning"})
        fleet.start()
        try:
            fleet.wait_ready(120)
            found = asyncio.run(run(fleet, server, images, arguments.minutes, arguments.share))
        finally:
            fleet.stop()
    save("load", found)


if __name__ == "__main__":
    main()
