# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Golden files of all profiles look as they did, within 50 dB: the promise for drawing, which is not exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from make_golden_drawn import FILES, drawn, window
from PIL import Image

import picogram

TOLERANCE = 50.0
"""PSNR in dB. Between bfloat16 and float32 and between 1 and 2 threads, 63 dB and more were seen."""


@pytest.mark.lmm
@pytest.mark.parametrize("profile", FILES)
def test_a_golden_file_looks_as_it_did(profile: str) -> None:
    data = FILES[profile].read_bytes()
    assert picogram.inspect(data).profile == profile
    found = np.asarray(window(picogram.decode(data)), np.float64)
    with Image.open(drawn(profile)) as image:
        expected = np.asarray(image.convert("RGB"), np.float64)
    assert psnr(found, expected) >= TOLERANCE


@pytest.mark.parametrize("profile", ["base", "stc", "misc", "sedic"])
def test_golden_pictures_are_not_base_pictures(profile: str) -> None:
    base = np.asarray(window(picogram.decode(FILES[profile].read_bytes(), steps=0)), np.float64)
    with Image.open(drawn(profile)) as image:
        assert psnr(base, np.asarray(image.convert("RGB"), np.float64)) < TOLERANCE


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.square(a - b).mean())))
