# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Are byte budgets kept, and how closely?

    python benchmarks/budgets.py FOLDER --count 200 --json benchmarks/results/budgets.json

Random budgets between 0.008 and 0.05 bits per pixel (log-uniform) on the pictures of a folder, in turn. Every Kodak
picture reaches these; beyond the finest rate of a picture its finest file is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

import picogram

LOW_BPP, HIGH_BPP = 0.008, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    paths = sorted(args.folder.glob("*.png"))
    over, shortfalls = 0, []
    for i in track(range(args.count), "Encoding", console=Console(stderr=True)):
        picture = Image.open(paths[i % len(paths)])
        bpp = np.exp(rng.uniform(np.log(LOW_BPP), np.log(HIGH_BPP)))
        budget = int(bpp * picture.width * picture.height / 8)
        size = len(picogram.encode(picture, bytes=budget))
        over += size > budget
        shortfalls.append(1 - size / budget)
    result = {
        "pictures": len(paths),
        "budgets": args.count,
        "over": int(over),
        "mean_shortfall": round(float(np.mean(shortfalls)), 5),
        "largest_shortfall": round(float(np.max(shortfalls)), 5),
        "bpp": [LOW_BPP, HIGH_BPP],
    }
    print(json.dumps(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
