# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Does anything get lost when everything dies all the time?

    python -m benchmarks.fleet.chaos [--jobs 2000] -> benchmarks/results/fleet/chaos.json

Callers send jobs through the gateway with the Python client. Meanwhile every second a worker is killed (SIGKILL) and
started again, every 20 seconds the gateway restarts, and every 30 the job store (append-only file on). Of every job the
answer must be the one right answer; one in ten is asked for twice under one key; five kill every worker that takes them,
and only those may end as dead letters.

    python -m benchmarks.fleet.chaos --real --jobs 1500 --every 6 --workers 2 -> benchmarks/results/fleet/chaos_real.json

does the same with real encoders and no poison, killing one every 6 seconds, for they take seconds to load.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from PIL import Image
from pydantic import SecretStr

from benchmarks.fleet.common import job_store, marked, percentile, save, stand_ins
from benchmarks.fleet.stand_ins import POISON, answer_to
from picogram import AsyncClient, encode
from picogram.errors import JobAbandoned, PicogramError
from picogram.fleet.processes import Fleet, FleetProcess
from picogram.fleet.store_server import ValkeyServer
from picogram.jobs import open_broker
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import RedisBroker

SETTINGS = {
    "PICOGRAM_LEASE_SECONDS": "2",
    "PICOGRAM_QUEUE_DEPTH": "256",
    "PICOGRAM_LOG_LEVEL": "error",
    "PICOGRAM_MAX_BATCH": "4",
}


Right = Callable[[bytes], bytes]
"""The one right answer to an image."""


@dataclass
class Tally:
    """What became of the jobs."""

    right: int = 0
    wrong: int = 0
    abandoned: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    twins_differ: int = 0
    seconds: list[float] = field(default_factory=list)


async def havoc(
    server: ValkeyServer,
    gateway: FleetProcess,
    workers: list[FleetProcess],
    counts: Counter[str],
    every: float,
    seed: int = 1,
) -> None:
    """Until canceled. Whatever is dead is started again at once, as an orchestrator would."""
    dice, tick = random.Random(seed), 0
    while True:
        await asyncio.sleep(every)
        tick += 1
        victim = dice.choice(workers)
        if victim.child and victim.running:
            victim.child.send_signal(signal.SIGKILL)
            counts["workers killed"] += 1
        for worker in workers:
            if not worker.running:
                await asyncio.to_thread(_start_again, worker)
        if tick % 20 == 10:
            await asyncio.to_thread(_restart, gateway)
            counts["gateway restarts"] += 1
        if tick % 30 == 15:
            await asyncio.to_thread(server.restart)
            counts["job store restarts"] += 1


async def ask(client: AsyncClient, image: bytes, poison: bool, right: Right, tally: Tally) -> None:
    """One job by the client, which tries again by itself."""
    started = time.perf_counter()
    try:
        data = (await client.encode(image)).data
    except JobAbandoned:
        tally.abandoned += poison
        tally.lost["abandoned without a fault"] += not poison
    except PicogramError as error:
        tally.lost[f"{type(error).__name__}: {error}"] += 1
    else:
        tally.right += data == right(image)
        tally.wrong += data != right(image)
        tally.seconds.append(time.perf_counter() - started)


async def ask_twice(url: str, image: bytes, right: Right, tally: Tally) -> None:
    """The same request by two callers under one key: same job, same answer."""
    key = uuid.uuid4().hex
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        answers = await asyncio.gather(*(_insist(http, key, image) for _ in range(2)))
    tally.right += answers[0] == right(image)
    tally.wrong += answers[0] != right(image)
    tally.twins_differ += answers[0] != answers[1]


async def _insist(http: httpx2.AsyncClient, key: str, image: bytes) -> bytes:
    for _ in range(200):
        try:
            answer = await http.post(
                "/v1/encode", content=image, headers={"Idempotency-Key": key, "Content-Type": "image/png"}
            )
        except httpx2.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return answer.content
        await asyncio.sleep(0.25)
    return b""


async def run(
    fleet: Fleet, server: ValkeyServer, jobs: int, every: float, images: list[bytes], right: Right
) -> dict[str, Any]:
    """All jobs, 32 at a time, and then what is left in the store."""
    tally, counts = Tally(), Counter[str]()
    poison = set() if images else set(range(0, jobs, max(1, jobs // 5)))
    numbers = iter(range(jobs))
    client = AsyncClient(fleet.url, retries=100, timeout=300)

    async def caller() -> None:
        for number in numbers:
            bad = number in poison
            image = images[number % len(images)] if images else marked(b"%d" % number + POISON * bad)
            if number % 10 == 5:
                await ask_twice(fleet.url, image, right, tally)
            else:
                await ask(client, image, bad, right, tally)
            done = tally.right + tally.wrong + tally.abandoned + sum(tally.lost.values())
            if done % 200 == 0:
                print(f"{done} of {jobs}, {dict(counts)}, lost {dict(tally.lost)}", flush=True)

    wrecking = asyncio.create_task(havoc(server, fleet.gateway, fleet.workers, counts, every))
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(32)))
    wrecking.cancel()
    await asyncio.gather(wrecking, return_exceptions=True)
    await client.close()
    broker = open_broker(QueueSettings(redis_url=SecretStr(server.url)))
    assert isinstance(broker, RedisBroker)
    await asyncio.sleep(3)
    found = {
        "jobs": jobs,
        "poison": len(poison),
        "seconds": time.perf_counter() - started,
        **counts,
        "right": tally.right,
        "wrong": tally.wrong,
        "answered twice differently": tally.twins_differ,
        "given up as dead, poison": tally.abandoned,
        "lost": sum(tally.lost.values()),
        "why": dict(tally.lost),
        "dead letters": await broker.store.client.xlen(broker.store.keys.dead("encoder")),
        "depth at the end": await broker.depth("encoder"),
        "p50_seconds": percentile(tally.seconds, 0.5),
        "p99_seconds": percentile(tally.seconds, 0.99),
    }
    await broker.close()
    return found


def real_answers() -> tuple[list[bytes], Right]:
    """Twelve pictures, and the files that the library makes of them."""
    images = [draw(seed) for seed in range(12)]
    files = {image: encode(image) for image in images}
    return images, files.__getitem__


def draw(seed: int) -> bytes:
    """A picture of smooth random colours."""
    noise = Image.effect_noise((6, 4), 120) if seed % 2 else Image.radial_gradient("L")
    picture = Image.merge("RGB", [noise.rotate(30 * seed + angle) for angle in (0, 90, 180)])
    buffer = io.BytesIO()
    picture.resize((192, 128), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def _start_again(process: FleetProcess) -> None:
    if process.child:
        process.child.wait()
    process.start()


def _restart(process: FleetProcess) -> None:
    assert process.child is not None
    process.child.terminate()
    process.child.wait()
    process.start()


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between kills")
    parser.add_argument("--real", action="store_true", help="real encoders")
    arguments = parser.parse_args()
    images, right = real_answers() if arguments.real else ([], answer_to)
    with job_store() as server:
        encoders = arguments.workers if arguments.real else 0
        fleet = Fleet(server.url, encoders=encoders, decoders=0, lmms=0, settings=SETTINGS)
        if not arguments.real:
            fleet.workers = stand_ins(server.url, arguments.workers, SETTINGS)
        fleet.start()
        try:
            fleet.wait_ready(180)
            found = asyncio.run(run(fleet, server, arguments.jobs, arguments.every, images, right))
        finally:
            fleet.kill()
    save("chaos_real" if arguments.real else "chaos", found)


if __name__ == "__main__":
    main()
