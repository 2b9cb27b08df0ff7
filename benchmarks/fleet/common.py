# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the fleet's measurements share: a job store, pictures, percentiles, memory, and where results go."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from picogram.fleet.processes import FleetProcess
from picogram.fleet.store_server import ValkeyServer, free_port

RESULTS = Path(__file__).parents[1] / "results" / "fleet"


@contextmanager
def job_store() -> Iterator[ValkeyServer]:
    """A server of one's own with its data in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="picogram-") as folder:
        server = ValkeyServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


def crops(source: Path, count: int, width: int = 384, height: int = 256) -> list[bytes]:
    """PNG files of ``count`` crops, from the corners and the middle of each picture in a tar file or folder in turn."""
    pictures = list(_pictures(source))
    found: list[bytes] = []
    for round_ in range(9):
        for picture in pictures:
            if len(found) == count:
                return found
            x = (picture.width - width) * (round_ % 3) // 2
            y = (picture.height - height) * (round_ // 3) // 2
            buffer = io.BytesIO()
            picture.crop((x, y, x + width, y + height)).save(buffer, "PNG", compress_level=1)
            found.append(buffer.getvalue())
    return found


def stand_ins(store_url: str, count: int, settings: dict[str, str]) -> list[FleetProcess]:
    """Workers without models, not started; see ``benchmarks.fleet.stand_ins``."""
    made = []
    for number in range(count):
        port = free_port()
        probes = {"PICOGRAM_HEALTH_HOST": "127.0.0.1", "PICOGRAM_HEALTH_PORT": str(port)}
        environment = {"PICOGRAM_REDIS_URL": store_url, **settings, **probes}
        made.append(FleetProcess(f"encoder {number + 1}", "benchmarks.fleet.stand_ins", port, environment))
    return made


def marked(mark: bytes) -> bytes:
    """A small picture with a text behind it, which readers of pictures do not mind."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue() + mark


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, with what it did in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def save(name: str, found: dict[str, Any]) -> None:
    """Write the JSON, and show it without its long lists."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    short = {key: value for key, value in found.items() if not (isinstance(value, list) and len(value) > 12)}
    print(json.dumps(short, indent=1), flush=True)


def _pictures(source: Path) -> Iterator[Image.Image]:
    if source.is_dir():
        for path in sorted(source.glob("*.png")):
            yield Image.open(path).convert("RGB")
        return
    with tarfile.open(source) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if member.name.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
                file = archive.extractfile(member)
                assert file is not None
                yield Image.open(io.BytesIO(file.read())).convert("RGB")
