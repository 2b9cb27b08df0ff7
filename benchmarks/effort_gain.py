# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What effort at encode time brings, against effort 0 in the same run.

    python -m benchmarks.effort_gain PICTURES --out OUT.json [--bpp 0.015 0.03] [--effort 1 2] [--every 60] [--crop W H]

PICTURES: a folder or a tar. Every picture is encoded with effort 0 at each size and at a size a tenth larger, which says
what bytes are worth in each metric, and with each effort asked for; shown as base picture and drawn. ``saving`` is the
share of the bytes for which effort 0 would be as good, by each metric: ln(bytes) saved, from means over all pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import picogram
from benchmarks.judging import PictureJudge, middle, pictures
from picogram.metrics import weights

METRICS = ("lpips_alex", "lpips_vgg", "dists", "psnr")
_MORE = 1.1


def measured(judge: PictureJudge, name: str, image: Image.Image, bpp: float, way: str) -> dict[str, Any]:
    """One file: ``way`` is an effort, or "more" for effort 0 with a tenth more bytes."""
    begun = time.process_time()
    size = bpp * _MORE if way == "more" else bpp
    data = picogram.encode(image, bpp=size, effort=0 if way == "more" else int(way))
    row = {
        "picture": name,
        "bpp": bpp,
        "way": way,
        "bytes": len(data),
        "seconds": time.process_time() - begun,
    }
    for shown, steps in (("base", 0), ("drawn", None)):
        found = judge.scores(picogram.decode(data, steps=steps))
        row |= {f"{shown} {metric}": found[metric] for metric in METRICS}
    return row


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means, and savings against effort 0, by size and effort."""
    found = []
    for bpp in sorted({row["bpp"] for row in rows}):
        by = {row["way"]: [r for r in rows if (r["bpp"], r["way"]) == (bpp, row["way"])] for row in rows}
        mean = {way: _means(some) for way, some in by.items()}
        plain, more = mean["0"], mean["more"]
        for way in sorted(set(mean) - {"0", "more"}):
            other = mean[way]
            told: dict[str, Any] = {"bpp": bpp, "effort": int(way), "pictures": len(by[way])}
            told |= {"seconds": other["seconds"], "bytes": math.exp(other["size"] - plain["size"])}
            for key in (f"{shown} {metric}" for shown in ("base", "drawn") for metric in METRICS):
                worth = (more[key] - plain[key]) / (more["size"] - plain["size"])
                saving = (other[key] - plain[key]) / worth - (other["size"] - plain["size"])
                told[key] = {
                    "effort 0": plain[key],
                    "here": other[key],
                    "ratio": other[key] / plain[key],
                    "saving": saving,
                }
            found.append(told)
    return found


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    keys = [key for key, value in rows[0].items() if isinstance(value, float)]
    return {key: float(np.mean([r[key] for r in rows])) for key in keys} | {
        "size": float(np.mean([math.log(r["bytes"]) for r in rows]))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.015, 0.03])
    parser.add_argument("--effort", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="leave so many pictures out first")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--crop", type=int, nargs=2)
    args = parser.parse_args()
    judge, rows = PictureJudge(weights.require(), half=True), list[dict[str, Any]]()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    every = pictures(args.pictures, 1, None)
    for name, whole in islice(every, args.first, None, args.every):
        if len({row["picture"] for row in rows}) == args.limit:
            break
        image = middle(whole, args.crop)
        judge.original(image)
        for bpp in args.bpp:
            rows += [measured(judge, name, image, bpp, way) for way in ("0", "more", *map(str, args.effort))]
            print(
                name,
                bpp,
                *(f"{r['way']}: {r['bytes']} B {r['seconds']:.1f} s" for r in rows[-2 - len(args.effort) :]),
                flush=True,
            )
        args.out.write_text(json.dumps({"summary": summary(rows), "rows": rows}, indent=1) + "\n")
    for told in summary(rows):
        print(
            f"bpp {told['bpp']} effort {told['effort']}: bytes x{told['bytes']:.3f}, {told['seconds']:.1f} s"
        )
        for key, value in told.items():
            if isinstance(value, dict):
                print(f"  {key:<16} x{value['ratio']:.4f}, as good as {value['saving']:+.1%} bytes saved")


if __name__ == "__main__":
    main()
