# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Requests made up from the OpenAPI document, against the embedded server with its real models.

    python -m benchmarks.fleet.schema [--examples 100] -> benchmarks/results/fleet/schema.json

schemathesis generates valid and invalid requests for every operation; pictures and .pico files come from here, some
of them damaged. What is counted are server errors (5xx) and answers that the document does not promise.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from benchmarks.fleet.common import save
from picogram.bitstream import MEDIA_TYPE, Header, Picogram, Profile, serialise
from picogram.fleet.processes import FleetProcess
from picogram.fleet.store_server import free_port

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


def _picture(size: tuple[int, int], shade: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 90, 255 - shade)).save(buffer, kind)
    return buffer.getvalue()


sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))
files = st.builds(
    lambda width, height, latent: serialise(Picogram(Header(Profile.BASE, width, height, 1), latent)),
    st.integers(1, 65_535),
    st.integers(1, 65_535),
    st.binary(min_size=1, max_size=64),
)


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Whole, cut off, or something else altogether."""
    cut = st.builds(lambda data, at: data[: at % (len(data) + 1)], whole, st.integers(0, 10_000))
    return st.one_of(whole, whole, cut, st.binary(max_size=200))


for kind in ("png", "jpeg", "webp", "tiff", "bmp", "gif", "avif"):
    pictures = st.builds(_picture, sizes, st.integers(0, 255), st.just(kind.upper()))
    schemathesis.openapi.media_type(f"image/{kind}", damaged(pictures))
schemathesis.openapi.media_type(MEDIA_TYPE, damaged(files))
schemathesis.openapi.media_type("application/octet-stream", damaged(st.one_of(files, pictures)))


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    arguments = parser.parse_args()
    port = free_port()
    settings = {"PICOGRAM_PORT": str(port), "PICOGRAM_LOG_LEVEL": "error", "OMP_NUM_THREADS": "1"}
    server = FleetProcess("gateway", "picogram_gateway", port, settings)
    server.start()
    try:
        while not server.ready():
            if not server.running:
                raise SystemExit("the server does not start")
        code, told = _run(f"http://127.0.0.1:{port}/openapi.json", arguments.examples)
        alive = server.running and server.ready()
    finally:
        if server.child:
            server.child.terminate()
            server.child.wait()
    print(told)
    found: dict[str, Any] = {
        "examples": arguments.examples,
        "checks": CHECKS,
        "exit_code": code,
        "alive": alive,
    }
    for name, pattern in (
        ("operations", r"Selected: (\d+)/"),
        ("test_cases", r"(\d+) generated"),
        ("failures", r"(\d+) found"),
    ):
        match = re.search(pattern, told)
        found[name] = int(match.group(1)) if match else 0
    found["server_errors"] = told.count("Server error")
    save("schema", found)


def _run(url: str, examples: int) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        url,
        "--checks",
        CHECKS,
        "--max-examples",
        str(examples),
    ]
    command += ["--seed", "1", "--request-timeout", "60", "--exclude-path-regex", "events", "--no-color"]
    with tempfile.TemporaryDirectory() as folder:
        # The command line loads the module named here, and so the strategies above.
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "benchmarks.fleet.schema",
            "PYTHONPATH": str(Path.cwd()),
        }
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
        )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    main()
