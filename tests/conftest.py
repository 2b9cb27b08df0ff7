# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Photographs for all tests."""

from __future__ import annotations

import pytest
from pictures import resized
from PIL import Image
from skimage import data


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
