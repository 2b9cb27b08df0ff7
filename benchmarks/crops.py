# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Crops at 100 % of what ``benchmarks.judging --save PNG`` left: original, base picture, drawn.

python -m benchmarks.crops KODAK PNG --bpp 0.03 --out docs/images/drawn.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

SIZE = 320, 240
PLACES = {
    "kodim15": (150, 60),  # a face
    "kodim19": (150, 300),  # a fence, a wall
    "kodim21": (60, 60),  # sky
    "kodim20": (200, 180),  # letters
    "kodim23": (60, 40),  # feathers before a blur
}
GAP = 4


def row(original: Path, saved: Path, bpp: float, corner: tuple[int, int]) -> list[Image.Image]:
    """The same place three times."""
    paths = [original, *(saved / f"{original.stem}-{bpp}-{steps}.png" for steps in (0, 1))]
    box = (*corner, corner[0] + SIZE[0], corner[1] + SIZE[1])
    return [Image.open(path).convert("RGB").crop(box) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("originals", type=Path)
    parser.add_argument("saved", type=Path)
    parser.add_argument("--bpp", type=float, default=0.03)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [
        row(args.originals / f"{name}.png", args.saved, args.bpp, place) for name, place in PLACES.items()
    ]
    width, height = SIZE[0] + GAP, SIZE[1] + GAP
    sheet = Image.new("RGB", (3 * width - GAP, len(rows) * height - GAP), "white")
    for i, pieces in enumerate(rows):
        for j, piece in enumerate(pieces):
            sheet.paste(piece, (j * width, i * height))
    sheet.save(args.out, quality=88)


if __name__ == "__main__":
    main()
