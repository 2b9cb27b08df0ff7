# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Learn the counts that the coding of masks starts from: ``shared/picogram/semantics/mask_counts.bin``.

    python -m training.words.train_masks --out shared/picogram/semantics

The masks are drawn here: thresholded smooth noise, ellipses, and ellipses with wavy edges, at the four sides.
Takes a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np

from picogram.semantics.description import MASK_SIDES
from picogram.semantics.masks import CONTEXTS, COUNTS_FILE, LEVELS, Mask, contexts

MASKS = {8: 20_000, 16: 8_000, 32: 3_000, 64: 1_000}
START = 16
"""A context starts with about so many counts."""


def smooth_noise(rng: np.random.Generator, side: int, width: float) -> np.ndarray:
    """``[side,side]`` Gaussian noise, blurred by ``width`` parts of the side, of unit variance."""
    size = 2 * side
    frequencies = np.fft.fftfreq(size) * side
    squares = frequencies[:, None] ** 2 + frequencies[None] ** 2
    blur = np.exp(-2 * (np.pi * width) ** 2 * squares)
    blurred = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * blur).real
    return blurred[:side, :side] / math.sqrt((blur**2).mean())


def drawn_mask(rng: np.random.Generator, side: int) -> Mask:
    """A mask ``[side,side]`` as an object might have it."""
    kind = rng.integers(3)
    if kind == 0:
        noise = smooth_noise(rng, side, rng.uniform(0.06, 0.2))
        found: Mask = noise > np.quantile(noise, rng.uniform(0.3, 0.95))
        return found
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    mask = np.zeros((side, side), dtype=bool)
    for _ in range(rng.integers(1, 3)):
        across, along = rng.uniform(0.08, 0.5, 2)
        left, top = rng.uniform(0.05, 0.95, 2)
        angle = rng.uniform(0, np.pi)
        u = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
        v = (y - top) * np.cos(angle) - (x - left) * np.sin(angle)
        waves = smooth_noise(rng, side, 0.08) * rng.uniform(0, 0.5) if kind == 2 else 0
        mask |= (u / across) ** 2 + (v / along) ** 2 + waves < 1
    return mask


def level_of(value: float) -> int:
    """The level whose count is nearest, as a ratio."""
    return min(range(16), key=lambda level: abs(math.log2(max(value, 1) / LEVELS[level])))


def start_counts(masks: list[Mask]) -> bytes:
    """A byte for each context: levels of zeros and of ones, in the ratio seen in the masks."""
    seen = np.full((2, CONTEXTS), 0.4)
    for mask in masks:
        np.add.at(seen, (mask.astype(int), contexts(mask)), 1)
    parts = seen / seen.sum(0)
    counts = parts * np.maximum(
        START, 1 / parts.min(0)
    )  # no count below one: rare pixels raise the others instead
    return bytes(level_of(zeros) << 4 | level_of(ones) for zeros, ones in counts.T)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="folder for the file")
    return made


def main() -> None:
    arguments = parser().parse_args()
    rng = np.random.default_rng(1)
    data = b"".join(start_counts([drawn_mask(rng, side) for _ in range(MASKS[side])]) for side in MASK_SIDES)
    (arguments.out / COUNTS_FILE).write_bytes(data)
    print(f"{COUNTS_FILE}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
