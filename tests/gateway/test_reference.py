# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Classical codecs at a byte budget: what fits is used up, what is too large becomes smaller, no torch is needed."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from image_files import saved
from PIL import Image, ImageChops, ImageStat

from picogram.errors import BudgetTooSmall, JobCanceled, UnreadableImage, UsageError
from picogram.jobs import Result
from picogram.pipeline.handovers import JobReport
from picogram_gateway.workers import CODECS, reference


@pytest.fixture(scope="module")
def photo_file(photos: list[Image.Image]) -> bytes:
    """384x256 pixels."""
    return saved(photos[1], "PNG")


def told(result: Result) -> Mapping[str, Any]:
    """What is reported of the file."""
    report = JobReport.of(result.metadata)
    assert report is not None
    return report.result


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def squared_error(image: Image.Image, data: bytes) -> float:
    shown = opened(data).resize(image.size, Image.Resampling.LANCZOS)
    return float(sum(ImageStat.Stat(ImageChops.difference(image, shown)).sum2))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("budget", [1000, 3000, 10_000])
def test_a_file_of_that_codec_within_the_budget_that_uses_it(
    photo_file: bytes, codec: str, budget: int
) -> None:
    result = reference(photo_file, codec, budget)
    assert 0.7 * budget < len(result.payload) <= budget
    assert result.media_type == f"image/{codec}"
    facts = told(result)
    assert (facts["width"], facts["height"], facts["codec"]) == (384, 256, codec)
    with Image.open(io.BytesIO(result.payload)) as image:
        assert image.format == codec.upper()
        assert image.size == (facts["coded_width"], facts["coded_height"])


def test_what_does_not_fit_at_full_size_is_coded_smaller(photo_file: bytes) -> None:
    facts = [told(reference(photo_file, "jpeg", budget)) for budget in (20_000, 2000, 700)]
    widths = [each["coded_width"] for each in facts]
    assert widths[0] == 384
    assert widths[0] > widths[1] > widths[2]
    assert all(abs(each["coded_width"] * 256 - each["coded_height"] * 384) < 384 for each in facts)


def test_the_smaller_size_wins_only_where_it_is_nearer_to_the_original(
    photos: list[Image.Image], photo_file: bytes
) -> None:
    for budget in (2500, 12_000):
        result = reference(photo_file, "webp", budget)
        chosen = squared_error(photos[1], result.payload)
        for scale in (1, 2):
            small = photos[1].resize((384 // scale, 256 // scale), Image.Resampling.LANCZOS)
            files = (saved(small, "WEBP", quality=quality, method=6) for quality in range(0, 101, 4))
            assert all(chosen <= 1.001 * squared_error(photos[1], f) for f in files if len(f) <= budget)


@pytest.mark.parametrize("codec", CODECS)
def test_a_budget_that_nothing_fits_names_the_smallest_file(photo_file: bytes, codec: str) -> None:
    with pytest.raises(BudgetTooSmall, match=f"smallest {codec.upper()} file of this picture has") as caught:
        reference(photo_file, codec, 20)
    smallest = int(str(caught.value).split()[-2])
    assert len(reference(photo_file, codec, smallest).payload) == smallest
    with pytest.raises(BudgetTooSmall):
        reference(photo_file, codec, smallest - 1)


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (1, 900)])
def test_odd_shapes(size: tuple[int, int]) -> None:
    for codec in CODECS:
        result = reference(saved(Image.new("RGB", size, "teal"), "PNG"), codec, 2000)
        assert (told(result)["width"], told(result)["height"]) == size


def test_a_large_photo_takes_few_tries(photos: list[Image.Image]) -> None:
    tries = []
    large = saved(photos[1].resize((3600, 2400)), "JPEG")
    result = reference(large, "webp", 1500, check=lambda: tries.append(1))
    assert len(result.payload) <= 1500
    assert len(tries) <= 20
    assert told(result)["coded_width"] < 3600


def test_bad_arguments_and_images(photo_file: bytes) -> None:
    with pytest.raises(UsageError, match="no codec is named 'vvc'"):
        reference(photo_file, "vvc", 1000)
    with pytest.raises(UsageError, match="at least one byte"):
        reference(photo_file, "avif", 0)
    with pytest.raises(UnreadableImage):
        reference(b"no photo", "avif", 1000)


def test_a_canceled_search_ends_at_the_next_try(photo_file: bytes) -> None:
    tries = []

    def check() -> None:
        tries.append(1)
        if len(tries) == 3:
            raise JobCanceled("the job was canceled")

    with pytest.raises(JobCanceled):
        reference(photo_file, "webp", 3000, check)
    assert len(tries) == 3


def test_no_torch() -> None:
    code = "import sys, picogram_gateway.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
