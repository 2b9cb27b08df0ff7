# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Real photographs, carried by scikit-image, and synthetic pictures that are hard in other ways."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data


def resized(array: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray(array).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Four photographs, 192 to 384 pixels a side."""
    return [
        resized(data.astronaut(), 256, 256),
        resized(data.chelsea(), 384, 256),
        resized(data.coffee(), 300, 200),
        resized(data.rocket(), 192, 320),
    ]


@pytest.fixture(scope="session")
def photo(photos: list[Image.Image]) -> Image.Image:
    return photos[0]


def synthetic(seed: int, width: int, height: int) -> Image.Image:
    """Smooth gradients, edges and noise from a seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    base = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, rng.uniform(0, 40), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(base) + noise, 0, 255).astype(np.uint8))
