# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What listening costs: encode and decode times of ``taco``, with and without words, beside ``base`` in the same run.

    python -m benchmarks.listening --images kodak/*.png --out listening.json

768x512 at 0.03 bit per pixel, warm; for each picture the median of all rounds, and of these the mean, since how often the
rate is tried until it fits differs between pictures. Each round times every case once, so that the machine's moods touch
all alike. ``encoder`` is the encoder worker's part (hints are ready), the others are whole calls of the library.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import picogram
from benchmarks.speed import SIZE, budget, picture
from picogram import api
from picogram.request import EncodeOptions

CAPTION = "A small boat near a wooden pier on a calm lake."
BASE, BASE_DECODE = "base", "decode base, 0 steps"


def cases(path: Path | None) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    image, limit = picture(path, SIZE), budget(SIZE)
    options = EncodeOptions(bytes=limit, profile="taco", caption=CAPTION)
    (heard,) = api.prepare([image], [options])
    mask = np.zeros((16, 16), bool)
    mask[4:10, 6:14] = True
    encode = partial(picogram.encode, image, bytes=limit)
    base, taco = encode(), encode(profile="taco", caption=CAPTION)
    return {
        BASE: encode,
        "taco, encoder": lambda: api.assemble(image, heard, options),
        "taco, no caption": partial(encode, profile="taco", caption=""),
        "taco, caption given": partial(encode, profile="taco", caption=CAPTION),
        "taco, the captioner's": partial(encode, profile="taco"),
        "base, focus mask": partial(encode, focus=mask),
        "base, focus words": partial(encode, focus="the small boat"),
        BASE_DECODE: partial(picogram.decode, base, steps=0),
        "decode taco": partial(picogram.decode, taco),
    }


def measure(timed: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, action in timed.items():
            start = time.perf_counter()
            action()
            if number:  # the first round loads what is not loaded
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(some) for name, some in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, nargs="+", default=[None], help="default: a drawn one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    measured = [measure(cases(path), given.rounds) for path in given.images]
    seconds = {name: statistics.mean(one[name] for one in measured) for name in measured[0]}
    found = {
        name: {
            "seconds": value,
            "ratio": value / seconds[BASE_DECODE if name.startswith("decode") else BASE],
        }
        for name, value in seconds.items()
    }
    for name, row in found.items():
        print(f"{name:<28} {row['seconds']:.3f} s  {row['ratio']:.2f}x")
    about = {"size": SIZE, "pictures": len(measured), "rounds": given.rounds}
    given.out.write_text(json.dumps(about | {"cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
