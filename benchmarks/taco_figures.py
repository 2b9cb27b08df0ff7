# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures of docs/profiles/taco.md: profiles at equal file bytes, and what a focus does.

    python -m benchmarks.taco_figures KODAK --out docs/images

The focus is shown as found by words: what does not matter is darkened. Captions are the captioner's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import picogram
from benchmarks.figure import HEIGHT, LABEL, WIDTH, tile
from picogram.bench.measuring import budget_bytes
from picogram.images import read_image
from picogram.latent.focus import Focus
from picogram.semantics.words import default_words

PROFILES = ("kodim14.png", "kodim20.png", "kodim24.png")
FOCUS = {
    "kodim23.png": "the red parrot",
    "kodim04.png": "the red hat",
    "kodim15.png": "the red sweater",
    "kodim20.png": "the plane",
}


def by_profile(path: Path, bpp: float) -> list[Image.Image]:
    """Original, base without and with its step of the diffusion model, taco."""
    picture = read_image(path)
    base, taco = (
        picogram.encode(picture, bytes=budget_bytes(bpp, picture.size), profile=profile)
        for profile in ("base", "taco")
    )
    return [
        tile(picture, f"{path.stem}: original"),
        tile(picogram.decode(base, steps=0), f"base, 0 steps, {len(base):,} bytes"),
        tile(picogram.decode(base), f"base, 1 step, {len(base):,} bytes"),
        tile(picogram.decode(taco), f"taco, {len(taco):,} bytes"),
    ]


def darkened(picture: Image.Image, focus: Focus) -> Image.Image:
    """A picture whose parts are as bright as they matter."""
    weights = Image.fromarray(focus.weights).resize(picture.size, Image.Resampling.BILINEAR)
    light = 0.25 + 0.75 * np.asarray(weights)[..., None]
    return Image.fromarray(np.rint(np.asarray(picture) * light).clip(0, 255).astype(np.uint8))


def by_focus(path: Path, words: str, bpp: float) -> list[Image.Image]:
    """Where the words are, and taco without and with them."""
    picture = read_image(path)
    place = default_words().place(picture, words)
    plain, focused = (
        picogram.encode(picture, bytes=budget_bytes(bpp, picture.size), profile="taco", focus=focus)
        for focus in (None, words)
    )
    return [
        tile(picture, f"{path.stem}: original"),
        tile(darkened(picture, place), f'"{words}"'),
        tile(picogram.decode(plain), f"no focus, {len(plain):,} bytes"),
        tile(picogram.decode(focused), f"focus, {len(focused):,} bytes"),
    ]


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Tiles in rows of equal length."""
    columns = len(rows[0])
    whole = Image.new("RGB", (columns * (WIDTH + 4) - 4, len(rows) * (HEIGHT + LABEL)), "white")
    for i, row in enumerate(rows):
        for j, piece in enumerate(row):
            whole.paste(piece, (j * (WIDTH + 4), i * (HEIGHT + LABEL)))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bpp", type=float, default=0.03)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sheet([by_profile(given.folder / name, given.bpp) for name in PROFILES]).save(
        given.out / "taco.jpg", quality=75
    )
    sheet([by_focus(given.folder / name, words, given.bpp) for name, words in FOCUS.items()]).save(
        given.out / "focus.jpg", quality=75
    )


if __name__ == "__main__":
    main()
