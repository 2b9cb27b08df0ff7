# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out photographs with a phrase each and a mask, drawn by eye, of what the phrase names.

    regions.json + photos.tar ──load_regions──> FocusPhoto: RGB picture, phrase, mask [H, W] bool

The masks are ground truth for measuring only; ``regions.json`` says where they come from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from picogram.errors import UsageError
from picogram.images import read_image
from training.photos import held_out, read_source

TABLE = Path(__file__).with_name("regions.json")
MAX_SIDE = 768

Polygon = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class FocusRow:
    """One line of the table. ``polygon`` has ``(x, y)`` as shares of width and height, 0 to 1."""

    file: str
    phrase: str
    polygon: Polygon


@dataclass(frozen=True, slots=True, eq=False)
class FocusPhoto:
    """A photograph of at most 768 pixels a side; ``mask`` is ``[H, W] bool``, true on what the phrase names."""

    file: str
    phrase: str
    picture: Image.Image
    mask: NDArray[np.bool_]


def read_rows(table: Path = TABLE) -> list[FocusRow]:
    """All lines of the table, in its order."""
    rows = json.loads(table.read_text(encoding="utf-8"))["regions"]
    return [FocusRow(row["file"], row["phrase"], [(x, y) for x, y in row["polygon"]]) for row in rows]


def rasterise(polygon: Polygon, width: int, height: int) -> NDArray[np.bool_]:
    """``[height, width]`` mask of a polygon of shares, with the pixels that its outline passes through."""
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(x * width, y * height) for x, y in polygon], fill=1)
    return np.array(canvas)


def load_regions(tar: Path, table: Path = TABLE) -> list[FocusPhoto]:
    """The table's photographs from a tar or folder, in the table's order.

    Raises ``UsageError`` if a photograph is not in the last tenth by name, which training leaves out.
    """
    entries = dict(read_source(tar))
    held = {name: entries[name] for name in held_out(sorted(entries), tar.name)}
    photos = []
    for row in read_rows(table):
        if row.file not in held:
            raise UsageError(f"{tar}: no {row.file} among the held-out photographs")
        picture = read_image(held[row.file])
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        photos.append(FocusPhoto(row.file, row.phrase, picture, rasterise(row.polygon, *picture.size)))
    return photos
