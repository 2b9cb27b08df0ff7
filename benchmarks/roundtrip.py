# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Every profile over HTTP: each picture to a file and back through the embedded server, with every byte accounted for.

    python benchmarks/roundtrip.py FOLDER --bpp 0.03 --out roundtrip.json

Checked for each: the file keeps its budget; header and sections, as the answer's headers tell, add up to its length, and
so does what ``inspect`` says; the profile in the file; the picture that comes back has the original's size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

PROFILES = ("base", "stc", "misc", "sedic", "taco")
PARTS = ("Header", "Latent", "Caption", "Objects")


@contextmanager
def server(port: int) -> Iterator[httpx2.Client]:
    """The embedded server on this machine."""
    process = subprocess.Popen([sys.executable, "-m", "picogram.cli.main", "serve", "--port", str(port)])
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            for _ in range(240):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                time.sleep(0.5)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def there_and_back(client: httpx2.Client, path: Path, profile: str, bpp: float) -> dict[str, Any]:
    """One picture; raises AssertionError if anything does not add up."""
    raw = {"Content-Type": "image/png"}
    start = time.perf_counter()
    coded = client.post(f"/v1/encode?bpp={bpp}&profile={profile}", content=path.read_bytes(), headers=raw)
    middle = time.perf_counter()
    assert coded.status_code == 200, coded.text
    data, told = coded.content, coded.headers
    pico = {"Content-Type": "application/vnd.picogram"}
    decoded = client.post("/v1/decode", content=data, headers=pico | {"Accept": "image/png"})
    end = time.perf_counter()
    assert decoded.status_code == 200, decoded.text
    said = client.post("/v1/inspect", content=data, headers=pico).json()
    parts = {part.lower(): int(told[f"X-Picogram-{part}-Bytes"]) for part in PARTS}
    width, height = int(told["X-Picogram-Width"]), int(told["X-Picogram-Height"])
    assert sum(parts.values()) == len(data) == int(told["X-Picogram-Bytes"])
    assert said["header_bytes"] + sum(said["sections"].values()) == len(data)
    assert len(data) * 8 / (width * height) <= bpp
    assert (decoded.headers["X-Picogram-Width"], decoded.headers["X-Picogram-Height"]) == (
        str(width),
        str(height),
    )
    warnings = told.get_list("X-Picogram-Warning")
    return {
        "image": path.name,
        "asked": profile,
        "profile": said["profile"],
        "bytes": len(data),
        **parts,
        "encode_s": middle - start,
        "decode_s": end - middle,
        "warnings": warnings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bpp", type=float, default=0.03)
    parser.add_argument("--port", type=int, default=8931)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    paths, rows = sorted(given.folder.glob("*.png"))[: given.limit], []
    with server(given.port) as client:
        for profile in PROFILES:
            for path in paths:
                rows.append(there_and_back(client, path, profile, given.bpp))
            mine = [row for row in rows if row["asked"] == profile]
            means = {
                key: sum(r[key] for r in mine) / len(mine)
                for key in ("bytes", "caption", "objects", "decode_s")
            }
            kept = sum(row["profile"] == profile for row in mine)
            print(
                f"{profile:>6}: {len(mine)} pictures, {kept} files of that profile, {json.dumps(means)}",
                flush=True,
            )
    if given.out:
        given.out.write_text(json.dumps({"bpp": given.bpp, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
