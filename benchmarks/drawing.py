# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How long it takes to draw a file of each profile, and how soon its base picture is there.

    python -m benchmarks.drawing --image photo.png --out drawing.json

768x512 at 0.03 bit per pixel, embedded models, medians; ratios are to drawing the base picture alone in the same run.
Files of ``misc`` and ``sedic`` carry three objects, so that their times are those of full files. Peak memory is that of a
fresh process that draws one picture.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import picogram
from benchmarks.speed import SIZE, budget, peak_mebibytes, picture
from picogram.profiles.registry import PROFILES
from picogram.request import DecodeOptions
from picogram.semantics.description import Region

LARGE = (4000, 3000)
CAPTION = "A small boat near a wooden pier on a calm lake."


class Stopwatch:
    """Notes when the base picture came."""

    def __init__(self) -> None:
        self.started, self.preview_after = time.perf_counter(), 0.0

    def preview(self, image: Image.Image) -> None:
        self.preview_after = time.perf_counter() - self.started

    def progress(self, fraction: float) -> None: ...


def coded(image: Image.Image, profile: str) -> bytes:
    """A file of that profile with given words."""
    spec = PROFILES[profile]
    words: dict[str, Any] = {"caption": CAPTION} if spec.sections else {}
    if spec.max_objects:
        words["objects"] = [
            _region(name, spec.mask_sides[0], k) for k, name in enumerate(("boat", "pier", "lake"))
        ]
    return picogram.encode(image, bytes=budget(image.size), profile=profile, **words)


def _region(name: str, side: int, place: int) -> Region:
    mask = np.zeros((side, side), np.bool_)
    mask[side // 4 : side // 2, place * side // 4 : (place + 2) * side // 4] = True
    return Region(name, "seen from afar", mask)


def drawn(data: bytes, steps: int | None) -> tuple[float, float]:
    """Seconds to the base picture and to the end, words included."""
    from picogram.bitstream import parse
    from picogram.pipeline.draw import draw
    from picogram.semantics.words import default_words

    watch, file = Stopwatch(), parse(data)
    description = default_words().read([file])[0].description if file.optional and steps != 0 else None
    (found,) = draw([file], [description], [DecodeOptions(steps)], [watch])
    if isinstance(found, Exception):
        raise found
    return watch.preview_after, time.perf_counter() - watch.started


def measure(image: Image.Image, repeats: int) -> dict[str, Any]:
    """By profile: bytes, seconds to preview and end, ratio to the base picture."""
    rows: dict[str, Any] = {}
    plain = coded(image, "base")
    drawn(plain, 0)
    base = statistics.median(drawn(plain, 0)[1] for _ in range(repeats))
    rows["base picture"] = {"bytes": len(plain), "seconds": base, "ratio": 1.0}
    for profile in PROFILES:
        data = coded(image, profile)
        drawn(data, None)
        times = [drawn(data, None) for _ in range(repeats)]
        preview, total = (statistics.median(column) for column in zip(*times, strict=True))
        rows[profile] = {"bytes": len(data), "preview": preview, "seconds": total, "ratio": total / base}
        print(f"{profile:>13} {json.dumps(rows[profile])}", flush=True)
    return rows


def child(path: Path, large: bool) -> None:
    """Peak memory of drawing one picture of profile base with one step."""
    image = picture(path, LARGE if large else SIZE)
    data = coded(image, "base")
    encoded, start = peak_mebibytes(), time.perf_counter()
    picogram.decode(data, steps=1)
    print(json.dumps({"size": image.size, "seconds": time.perf_counter() - start, "encode_mib": encoded,
                      "peak_mib": peak_mebibytes()}))  # fmt: skip


def in_process(path: Path, large: bool) -> dict[str, Any]:
    """``child`` in a fresh interpreter."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.drawing",
        "--image",
        str(path),
        "--child",
        "large" if large else "small",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="a photo")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="leave 12 megapixels out")
    parser.add_argument("--child", choices=("small", "large"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.image, given.child == "large")
        return
    results = {"cores": len(os.sched_getaffinity(0)), "size": SIZE}
    results["profiles"] = measure(picture(given.image, SIZE), given.repeats)
    results["process_768x512"] = in_process(given.image, large=False)
    if not given.small:
        results["process_12mp"] = in_process(given.image, large=True)
    print(json.dumps(results, indent=1))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
