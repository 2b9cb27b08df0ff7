# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Golden files of all profiles look as they did, within 50 dB: the promise for drawing, which is not exact arithmetic."""

from __future__ import annotations

import pytest
from make_golden_drawn import FILES, drawn, window
from PIL import Image

import picogram
from picogram.metrics.fidelity import psnr

TOLERANCE = 50.0
"""PSNR in dB. Between bfloat16 and float32 and between 1 and 2 threads, 63 dB and more were seen."""


@pytest.mark.lmm
@pytest.mark.parametrize("profile", FILES)
def test_a_golden_file_looks_as_it_did(profile: str) -> None:
    data = FILES[profile].read_bytes()
    assert picogram.inspect(data).profile == profile
    with Image.open(drawn(profile)) as expected:
        assert psnr(window(picogram.decode(data)), expected) >= TOLERANCE


@pytest.mark.parametrize("profile", ["base", "stc", "misc", "sedic", "taco"])
def test_golden_pictures_are_not_base_pictures(profile: str) -> None:
    base = window(picogram.decode(FILES[profile].read_bytes(), steps=0))
    with Image.open(drawn(profile)) as image:
        assert psnr(base, image) < TOLERANCE
