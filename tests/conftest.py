# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Photographs for all tests, and a cache of models with something to pull into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_model import make_wheel, stand_in
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PICOGRAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PICOGRAM_METRICS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive that ``text`` is pulled from in these tests."""
    path = make_wheel(tmp_path / "wheels" / "picofake-1.0-py3-none-any.whl")
    stand_in(path, monkeypatch)
    return path
