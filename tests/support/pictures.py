# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Real photographs, carried by scikit-image, and synthetic pictures that are hard in other ways."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resized(array: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray(array).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def synthetic(seed: int, width: int, height: int) -> Image.Image:
    """Smooth gradients, edges and noise from a seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    base = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, rng.uniform(0, 40), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(base) + noise, 0, 255).astype(np.uint8))
