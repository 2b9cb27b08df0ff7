# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What batches gain: the same requests, 16 at a time, by a fleet that batches and by one that does not.

    python -m benchmarks.fleet.batching KODAK [--requests 64] -> benchmarks/results/fleet/batching.json

Workers have one core, everything else the other. Language model: reading the captions of .pico files (``/v1/inspect``).
Encoder and decoder: pictures without words, 8 to a batch, which they take one at a time; by default a batch is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.fleet.common import crops, job_store, save
from picogram.bitstream import MEDIA_TYPE
from picogram.fleet.processes import Fleet

CONCURRENCY = 16
CAPTIONS = (
    "A man in a red jacket stands on a rock above the sea.",
    "Two dogs run after a ball through tall grass.",
    "A white house with a green door beside a narrow canal.",
    "Children play football on a dusty field at sunset.",
    "A woman reads a newspaper in a small café.",
    "Snow lies on the roofs of the old town.",
    "A boy jumps from a wooden pier into a lake.",
    "Several sailing boats lie in a harbour under grey clouds.",
)

Request = tuple[str, dict[str, str], bytes]


async def throughput(http: httpx2.AsyncClient, requests: list[Request]) -> float:
    """Requests a second."""
    left = iter(requests)

    async def caller() -> None:
        for path, headers, body in left:
            answer = await http.post(path, content=body, headers=headers)
            assert answer.status_code == 200, answer.text

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    return len(requests) / (time.perf_counter() - started)


async def prepare(http: httpx2.AsyncClient, images: list[bytes], count: int) -> dict[str, list[Request]]:
    """What to send: files with captions, images, and files without."""
    image = {"Content-Type": "image/png"}
    file = {"Content-Type": MEDIA_TYPE}
    captioned, plain = [], []
    for caption in CAPTIONS:
        about = {"profile": "stc", "caption": caption, "quality": "20"}
        captioned.append(
            (await http.post("/v1/encode", params=about, content=images[0], headers=image)).content
        )
    for each in images:
        answer = await http.post("/v1/encode", params={"quality": "30"}, content=each, headers=image)
        plain.append(answer.content)
    return {
        "lmm": [("/v1/inspect", file, captioned[n % len(captioned)]) for n in range(count)],
        "encoder": [("/v1/encode?quality=30", image, images[n % len(images)]) for n in range(count)],
        "decoder": [("/v1/decode", file, plain[n % len(plain)]) for n in range(count)],
    }


async def drive(
    url: str, images: list[bytes], count: int, rounds: int, kinds: tuple[str, ...]
) -> dict[str, list[float]]:
    """Requests a second, by kind and round."""
    async with httpx2.AsyncClient(base_url=url, timeout=300) as http:
        requests = await prepare(http, images, count)
        found = {}
        for kind in kinds:
            await throughput(http, requests[kind][:CONCURRENCY])
            found[kind] = [await throughput(http, requests[kind]) for _ in range(rounds)]
        return found


def measure(
    images: list[bytes], count: int, rounds: int, batch: int, texts: int, core: int
) -> dict[str, list[float]]:
    """One fleet with these limits."""
    settings = {
        "PICOGRAM_MAX_BATCH": str(batch),
        "PICOGRAM_MAX_TEXT_BATCH": str(texts),
        "PICOGRAM_LOG_LEVEL": "warning",
    }
    with job_store() as server:
        fleet = Fleet(server.url, settings=settings)
        fleet.start()
        for process in fleet.workers:
            assert process.child is not None
            os.sched_setaffinity(process.child.pid, {core})
        try:
            fleet.wait_ready(180)
            return asyncio.run(drive(fleet.url, images, count, rounds, ("lmm", "encoder", "decoder")))
        finally:
            fleet.stop()


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder or tar file with Kodak's pictures")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    images = crops(arguments.pictures, 16)
    single = measure(images, arguments.requests, arguments.rounds, 1, 1, max(cores))
    batched = measure(images, arguments.requests, arguments.rounds, 8, 16, max(cores))
    found: dict[str, Any] = {"concurrency": CONCURRENCY, "requests": arguments.requests}
    for kind in single:
        found[kind] = {
            "one_by_one_per_second": max(single[kind]),
            "batched_per_second": max(batched[kind]),
            "ratio": max(batched[kind]) / max(single[kind]),
            "all": {"one_by_one": single[kind], "batched": batched[kind]},
        }
    save("batching", found)


if __name__ == "__main__":
    main()
