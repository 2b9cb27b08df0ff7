# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand hostile requests: does the gateway live, answer its probes, and stay small?

    python -m benchmarks.fleet.hostile [--requests 10000] -> benchmarks/results/fleet/hostile.json

Slow bodies and slow heads, huge headers, wrong lengths, broken chunks, bombs (pictures of a gigapixel in kilobytes, files
that claim one), broken forms, noise instead of HTTP, requests that stop in the middle, paths that climb. What is counted:
server errors, closed connections, memory of the process at its largest, and whether ordinary requests are still answered.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fleet.common import job_store, marked, save, stand_ins
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.fleet.processes import Fleet

SETTINGS = {
    "PICOGRAM_LOG_LEVEL": "error",
    "PICOGRAM_BODY_TIMEOUT_SECONDS": "3",
    "PICOGRAM_JOB_TIMEOUT_SECONDS": "20",
}
HOSTS = b"Host: localhost\r\n"
PATHS = (b"/v1/encode", b"/v1/decode", b"/v1/inspect", b"/v1/describe")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A grey PNG that claims a size, with these rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


BOMBS = [
    png(30_000, 30_000, bytes(30_001 * 300)),
    png(2**31 - 1, 2**31 - 1),
    png(1, 2**30),
    png(0, 0),
    png(8000, 5001),
]


def request(path: bytes, body: bytes, headers: bytes = b"", length: int | None = None) -> bytes:
    """A POST whose Content-Length may lie."""
    size = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n" % (path, HOSTS, headers, size) + body


def hostile(dice: random.Random) -> tuple[str, list[bytes], float]:
    """A kind, what to send, and seconds to wait between its parts."""
    path = dice.choice(PATHS)
    noise = dice.randbytes(dice.randrange(1, 2000))
    image = b"Content-Type: image/png\r\n"
    file = serialise(Picogram(Header(Profile.BASE, 65_535, 65_535, 1), noise[:40]))
    form = b"Content-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    huge = b"X-Noise: " + b"a" * dice.randrange(50_000, 200_000) + b"\r\n"
    many = b"".join(b"X-%d: y\r\n" % n for n in range(5000))
    chunked = b"Transfer-Encoding: chunked\r\n"
    start = b"POST %s HTTP/1.1\r\n%s%s\r\n" % (path, HOSTS, chunked + image)
    field = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n'
    fields = b"".join(field % n for n in range(500)) + b"--b--\r\n"
    packed = zlib.compress(bytes(10_000_000))
    arguments = b"?bytes=" + noise.hex().encode()[:50] + b"&quality=nan&profile=%00"
    kinds: dict[str, Callable[[], tuple[list[bytes], float]]] = {
        "slow body": lambda: ([request(path, b"x", image, 1000), *[b"y"] * 20], 0.5),
        "slow head": lambda: ([b"POST ", path, b" HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 20], 0.5),
        "huge header": lambda: ([request(path, b"x", huge)], 0),
        "many headers": lambda: ([request(path, b"x", many)], 0),
        "length too large": lambda: ([request(path, noise, image, len(noise) + 500)], 0),
        "length too small": lambda: ([request(path, noise, image, len(noise) // 2)], 0),
        "length absurd": lambda: ([request(path, noise, image, 2**62)], 0),
        "length negative": lambda: ([request(path, noise, image, -5)], 0),
        "two lengths": lambda: ([request(path, noise, image + b"Content-Length: 3\r\n")], 0),
        "broken chunks": lambda: ([request(path, b"zz\r\n" + noise, chunked)], 0),
        "endless chunks": lambda: ([start, *[b"1000\r\n" + bytes(4096) + b"\r\n"] * 40], 0),
        "bomb": lambda: ([request(dice.choice((PATHS[0], PATHS[3])), dice.choice(BOMBS), image)], 0),
        "file that claims a lot": lambda: ([request(dice.choice(PATHS[1:3]), file)], 0),
        "noise as a picture": lambda: ([request(PATHS[0], noise, image)], 0),
        "noise as a file": lambda: ([request(PATHS[1], b"PIC" + noise)], 0),
        "broken form": lambda: ([request(path, part + noise, form)], 0),
        "form of many fields": lambda: ([request(path, fields, form)], 0),
        "noise": lambda: ([noise], 0),
        "nothing": lambda: ([], 0),
        "half a request": lambda: ([request(path, marked(noise), image)[: dice.randrange(5, 200)]], 0),
        "climbing path": lambda: ([b"GET /web/../../../../etc/passwd HTTP/1.1\r\n" + HOSTS + b"\r\n"], 0),
        "escaped climbing path": lambda: (
            [b"GET /web/%2e%2e/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HOSTS + b"\r\n"],
            0,
        ),
        "strange job": lambda: (
            [b"GET /v1/jobs/" + noise.hex().encode()[:300] + b"/events HTTP/1.1\r\n" + HOSTS + b"\r\n"],
            0,
        ),
        "strange arguments": lambda: ([request(PATHS[0] + arguments, marked(b""), image)], 0),
        "strange key": lambda: (
            [request(PATHS[0], marked(noise), image + b"Idempotency-Key: " + b"k" * 5000 + b"\r\n")],
            0,
        ),
        "leaves at once": lambda: ([request(PATHS[0], marked(noise), image)], -1),
        "unknown method": lambda: ([b"BREW /v1/encode HTTP/1.1\r\n" + HOSTS + b"\r\n"], 0),
        "old protocol": lambda: ([b"GET / HTTP/0.9\r\n\r\n"], 0),
        "compressed": lambda: ([request(path, packed, image + b"Content-Encoding: deflate\r\n")], 0),
    }
    weights = [1 if kind.startswith("slow") else 5 for kind in kinds]
    kind = dice.choices(list(kinds), weights)[0]
    parts, pause = kinds[kind]()
    return kind, parts, pause


async def attack(port: int, dice: random.Random) -> tuple[str, str]:
    """The kind, and the status of the answer or what came instead of one."""
    kind, parts, pause = hostile(dice)
    writer = None
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(max(0.0, pause))
            if pause < 0:
                return kind, "left"
            if kind in ("nothing", "half a request", "length too large", "broken form"):
                writer.write_eof()
            line = await reader.readline()
            return kind, line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "closed"
    except TimeoutError:
        return kind, "no answer within 30 s"
    except (ConnectionError, IndexError, UnicodeDecodeError):
        return kind, "closed"
    finally:
        if writer:
            writer.close()


async def civil(port: int) -> tuple[str, float]:
    """An ordinary request among them: its status and seconds."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(PATHS[0], marked(b"civil"), b"Content-Type: image/png\r\nConnection: close\r\n"))
    line = await reader.readline()
    writer.close()
    return line.split(b" ")[1].decode(), time.perf_counter() - started


def peak_mb(pid: int) -> float:
    """The most memory the process ever had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def run(fleet: Fleet, count: int, seed: int) -> dict[str, Any]:
    """All requests, 100 at a time, with ordinary ones between."""
    statuses: dict[str, Counter[str]] = {}
    civilians: Counter[str] = Counter()
    slowest = 0.0
    numbers = iter(range(count))

    async def attacker(name: int) -> None:
        nonlocal slowest
        for number in numbers:
            kind, status = await attack(fleet.port, random.Random(seed * count + number))
            statuses.setdefault(kind, Counter())[status] += 1
            if number % 100 == 0:
                status, seconds = await civil(fleet.port)
                civilians[status] += 1
                slowest = max(slowest, seconds)
            if number % 1000 == 999:
                print(f"{number + 1} requests", flush=True)

    await asyncio.gather(*(attacker(name) for name in range(100)))
    await asyncio.sleep(1)
    gateway = fleet.gateway.child
    assert gateway is not None
    answers: Counter[str] = Counter()
    for each in statuses.values():
        answers.update(each)
    return {
        "requests": count,
        "alive": fleet.gateway.running,
        "ready": fleet.gateway.ready(),
        "peak_memory_mb": peak_mb(gateway.pid),
        "answers": dict(sorted(answers.items())),
        "server_errors": sum(n for status, n in answers.items() if status in ("500", "501", "502", "505")),
        "ordinary_requests_among_them": dict(civilians),
        "slowest_ordinary_seconds": slowest,
        "by_kind": {kind: dict(each) for kind, each in sorted(statuses.items())},
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with job_store() as server:
        fleet = Fleet(server.url, encoders=0, decoders=0, lmms=0, settings=SETTINGS)
        fleet.workers = stand_ins(server.url, 1, SETTINGS)
        fleet.start()
        try:
            fleet.wait_ready(60)
            found = asyncio.run(run(fleet, arguments.requests, arguments.seed))
        finally:
            fleet.kill()
    save("hostile", found)


if __name__ == "__main__":
    main()
