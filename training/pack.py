# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Decode photographs once into a flat array of uint8 crops that training memory-maps.

In: tars or folders of images. Out: ``train.u8`` and ``val.u8``, each ``[N, size, size, 3] uint8`` RGB, with
``train.json`` beside them (crop size, count, sources, seed). The last tenth of every source by name is the
validation split. JPEG blocks are hidden by down-scaling: every image is shrunk before it is cropped, small
ones least. Squashed squares (``aspect=jitter``) are stretched back to a random plausible aspect ratio.

    python -m training.pack --out /data/crops photos.tar:photos coco256.tar:jitter
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
HOLD_OUT = 0.1
JITTER_ASPECTS = (0.67, 0.75, 1.0, 1.33, 1.5)


def read_source(path: Path) -> list[tuple[str, bytes]]:
    """All images of a tar or a folder as ``(name, encoded bytes)``, sorted by name."""
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES]
        return sorted((str(p.relative_to(path)), p.read_bytes()) for p in files)
    with tarfile.open(path) as tar:
        members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
        return sorted((m.name, tar.extractfile(m).read()) for m in members)  # type: ignore[union-attr]


def unsquash(image: Image.Image, rng: random.Random) -> Image.Image:
    """Undo a square squash with a random aspect ratio, never enlarging either side."""
    aspect = rng.choice(JITTER_ASPECTS)
    width, height = image.size
    if aspect >= 1:
        return image.resize((width, round(height / aspect)), Image.Resampling.LANCZOS)
    return image.resize((round(width * aspect), height), Image.Resampling.LANCZOS)


def views(image: Image.Image, size: int, jitter: bool, rng: random.Random) -> Iterator[Image.Image]:
    """Shrunken copies of one photograph, from which crops are cut."""
    if jitter:
        image = unsquash(image, rng)
    short = min(image.size)
    if short < 1.5 * size:  # too small to shrink far: one view just above the crop size
        scales = [max(size / short, 0.85 if short * 0.85 >= size else 0.0) or size / short]
    else:
        scales = [rng.uniform(0.75, 0.95), max(size / short, rng.uniform(0.4, 0.6))]
    for scale in scales:
        width, height = (max(size, round(side * scale)) for side in image.size)
        yield image.resize((width, height), Image.Resampling.LANCZOS)


def crops(image: Image.Image, size: int, rng: random.Random) -> Iterator[np.ndarray]:
    """Lightly overlapping crops that cover an image, at a random offset."""
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    rows, cols = max(1, height // size), max(1, width // size)
    for row in range(rows):
        for col in range(cols):
            top = min(row * size + rng.randrange(height - rows * size + 1), height - size)
            left = min(col * size + rng.randrange(width - cols * size + 1), width - size)
            yield pixels[top : top + size, left : left + size]


def pack(sources: list[str], out: Path, size: int, seed: int, limit: int | None) -> dict[str, int]:
    """Write both splits; returns the number of crops in each."""
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    kept: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for source in sources:
        name, _, kind = source.partition(":")
        images = read_source(Path(name))
        first_held = int(len(images) * (1 - HOLD_OUT))
        for index, (_, data) in enumerate(images):
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            split = "train" if index < first_held else "val"
            for view in views(image, size, kind == "jitter", rng):
                kept[split].extend(crops(view, size, rng))
    counts = {}
    for split, arrays in kept.items():
        rng.shuffle(arrays)
        chosen = arrays[:limit] if limit else arrays
        np.stack(chosen).tofile(out / f"{split}.u8")
        counts[split] = len(chosen)
    meta = {"size": size, "seed": seed, "sources": [Path(s).name for s in sources], **counts}
    (out / "meta.json").write_text(json.dumps(meta, indent=1))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="PATH[:jitter]: a tar or folder of images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="keep at most this many crops of each split")
    args = parser.parse_args()
    print(json.dumps(pack(args.sources, args.out, args.size, args.seed, args.limit)))


if __name__ == "__main__":
    main()
