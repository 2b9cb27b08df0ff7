# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The README's picture: original, AVIF and Picogram at equal file bytes.

    python benchmarks/figure.py KODAK --out docs/images/side-by-side.jpg

AVIF is given the better of full and half size by LPIPS, as in the benchmark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import picogram
from picogram.bench.codecs import make
from picogram.bench.measuring import Backbones, Reference
from picogram.bench.search import Search
from picogram.images import read_image
from picogram.metrics import weights

PICTURES = ("kodim04.png", "kodim15.png", "kodim21.png", "kodim23.png")
WIDTH, HEIGHT, LABEL = 400, 266, 22


def tile(picture: Image.Image, label: str) -> Image.Image:
    """A picture cut to 3:2 and shrunk, with a line of text under it."""
    height = round(picture.width * HEIGHT / WIDTH)
    if height <= picture.height:  # portrait: keep the upper middle, where faces are
        top = (picture.height - height) // 3
        picture = picture.crop((0, top, picture.width, top + height))
    out = Image.new("RGB", (WIDTH, HEIGHT + LABEL), "white")
    out.paste(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    ImageDraw.Draw(out).text((6, HEIGHT + 3), label, "black", ImageFont.load_default(14))
    return out


def row(path: Path, bpp: float, backbones: Backbones) -> list[Image.Image]:
    """Original, AVIF and Picogram of one picture."""
    picture = read_image(path)
    budget = int(bpp * picture.width * picture.height / 8)
    data = picogram.encode(picture, bytes=budget)
    avif = Search(make("avif"), Reference(picture, backbones)).choose(budget)
    return [
        tile(picture, f"{path.stem}: original"),
        tile(avif.decoded, f"AVIF, {len(avif.encoded.data):,} bytes"),
        tile(picogram.decode(data), f"Picogram, {len(data):,} bytes"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bpp", type=float, default=0.04)
    args = parser.parse_args()
    backbones = Backbones(weights.require())
    rows = [row(args.folder / name, args.bpp, backbones) for name in PICTURES]
    sheet = Image.new("RGB", (3 * WIDTH + 8, len(rows) * (HEIGHT + LABEL)), "white")
    for i, tiles in enumerate(rows):
        for j, piece in enumerate(tiles):
            sheet.paste(piece, (j * (WIDTH + 4), i * (HEIGHT + LABEL)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=88)


if __name__ == "__main__":
    main()
