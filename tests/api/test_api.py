# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""encode, decode and inspect on real photographs: budgets kept, sizes kept, errors typed."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import synthetic
from PIL import Image

import picogram
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.errors import (
    BitstreamError,
    BudgetTooSmall,
    CorruptBitstream,
    LimitExceeded,
    NotAPicogram,
    PicogramError,
    UnknownModel,
    UnreadableImage,
    UnsupportedProfile,
    UsageError,
)
from picogram.models import DEFAULT_LATENT
from picogram.pipeline.rates import largest_rate


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.square(np.asarray(a, float) - np.asarray(b, float)).mean()
    return float(10 * np.log10(255**2 / error))


def test_random_budgets_are_never_exceeded_and_nearly_used(photos: list[Image.Image]) -> None:
    rng = np.random.default_rng(2)
    shortfalls = []
    for photo in photos:
        coarsest, finest = (len(picogram.encode(photo, quality=q)) for q in (0, 100))
        for _ in range(5):
            budget = int(np.exp(rng.uniform(np.log(coarsest), np.log(finest))))
            data = picogram.encode(photo, bytes=budget)
            assert len(data) <= budget
            shortfalls.append(1 - len(data) / budget)
    assert np.mean(shortfalls) < 0.03  # pictures of 60,000 pixels: one byte is already half a percent


def test_budgets_beyond_the_finest_rate_get_the_finest_file(photo: Image.Image) -> None:
    assert picogram.encode(photo, bytes=10**6) == picogram.encode(photo, quality=100)


def test_more_bytes_give_a_better_picture(photo: Image.Image) -> None:
    scores = [psnr(photo, picogram.decode(picogram.encode(photo, bytes=n))) for n in (60, 250, 1000)]
    assert scores == sorted(scores)
    assert scores[-1] > 20


def test_a_photograph_is_recognisable_at_a_twentieth_of_a_bit_per_pixel(photos: list[Image.Image]) -> None:
    for photo in photos:
        data = picogram.encode(photo, bpp=0.05)
        assert 8 * len(data) <= 0.05 * photo.width * photo.height
        assert psnr(photo, picogram.decode(data)) > 17


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (2, 300), (300, 2), (65, 129), (64, 64)])
@pytest.mark.parametrize("knob", [{"quality": 0}, {"quality": 100}, {"bytes": 80}])
def test_any_size_comes_back_at_its_size(size: tuple[int, int], knob: dict[str, Any]) -> None:
    picture = synthetic(3, *size)
    data = picogram.encode(picture, **knob)
    assert picogram.decode(data).size == size
    assert picogram.inspect(data).width == size[0]


def test_tiny_budgets_shrink_the_picture_until_it_fits(photo: Image.Image) -> None:
    data = picogram.encode(photo, bytes=60)
    assert len(data) <= 60
    assert picogram.inspect(data).downscale > 1
    assert picogram.decode(data).size == photo.size


def test_impossible_budgets_say_what_would_do(photo: Image.Image) -> None:
    with pytest.raises(BudgetTooSmall, match="smallest has"):
        picogram.encode(photo, bytes=9)


def test_bits_per_pixel_count_the_whole_file(photo: Image.Image) -> None:
    data = picogram.encode(photo, quality=30)
    found = picogram.inspect(data)
    assert found.file_bytes == len(data) == found.header_bytes + sum(found.sections.values())
    assert found.bpp == pytest.approx(8 * len(data) / (photo.width * photo.height))
    assert found.as_dict()["sections"] == {"latent": found.sections["latent"]}
    assert found.checks == {"file": "ok"}
    assert found.details["latent"].bits == 8 * found.sections["latent"]
    assert found.header_bytes <= 12


def test_quality_orders_sizes(photo: Image.Image) -> None:
    sizes = [len(picogram.encode(photo, quality=q)) for q in (0, 25, 50, 75, 100)]
    assert sizes == sorted(sizes)


def test_encoding_twice_gives_the_same_file(photo: Image.Image) -> None:
    assert picogram.encode(photo, bytes=500) == picogram.encode(photo, bytes=500)


def test_every_kind_of_input_gives_the_same_file(photo: Image.Image, tmp_path: Path) -> None:
    path, buffer = tmp_path / "photo.png", io.BytesIO()
    photo.save(path)
    photo.save(buffer, "PNG")
    expected = picogram.encode(photo, bytes=400)
    for source in (path, str(path), buffer.getvalue(), io.BytesIO(buffer.getvalue()), np.asarray(photo)):
        assert picogram.encode(source, bytes=400) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"bytes": 100, "bpp": 0.1},
        {"bytes": 0},
        {"bytes": -3},
        {"bytes": True},
        {"bpp": float("nan")},
        {"bpp": 0},
        {"quality": 101},
        {"quality": -1},
        {"quality": "high"},
    ],
)
def test_senseless_arguments_are_usage_errors(photo: Image.Image, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        picogram.encode(photo, **arguments)


def test_unknown_profiles_are_refused(photo: Image.Image) -> None:
    with pytest.raises(UnsupportedProfile, match="nonsense"):
        picogram.encode(photo, profile="nonsense")


def test_bad_images_are_image_errors() -> None:
    with pytest.raises(UnreadableImage):
        picogram.encode(b"not an image")


def test_bad_files_are_bitstream_errors(photo: Image.Image) -> None:
    data = picogram.encode(photo, bytes=300)
    with pytest.raises(NotAPicogram):
        picogram.decode(b"")
    for length in (1, 5, 12, len(data) - 1):
        with pytest.raises(BitstreamError):
            picogram.decode(data[:length])
    with pytest.raises(CorruptBitstream):
        picogram.decode(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(UsageError):
        picogram.decode("a string")  # type: ignore[arg-type]


def test_profile_base_carries_no_words(photo: Image.Image) -> None:
    with pytest.raises(UsageError, match="--profile stc"):
        picogram.encode(photo, caption="a woman in an orange suit")


def test_unknown_profiles_and_sizes_are_refused_before_any_work() -> None:
    cases = [
        (Header(Profile.BASE, 64, 64, DEFAULT_LATENT), {"caption": b"a cat"}, UnsupportedProfile),
        (Header(Profile.STC, 64, 64, DEFAULT_LATENT), {"objects": b"a cat"}, UnsupportedProfile),
        (Header(Profile.BASE, 60_000, 60_000, DEFAULT_LATENT), {}, LimitExceeded),
    ]
    for header, optional, expected in cases:
        with pytest.raises(expected):
            picogram.decode(serialise(Picogram(header, b"\x80", optional)))


@pytest.mark.parametrize("model", [0, 1, 4000])
@pytest.mark.parametrize("profile", [Profile.BASE, Profile.TACO])
def test_files_of_models_that_are_not_here_are_refused_by_name(model: int, profile: Profile) -> None:
    file = serialise(Picogram(Header(profile, 64, 64, model), b"\x80"))
    with pytest.raises(UnknownModel, match=f"needs latent model {model}; installed: ") as told:
        picogram.decode(file)
    assert told.value.slug == "unknown-model"
    assert picogram.inspect(file).model == model


def test_mutations_behind_a_valid_checksum_never_crash(photo: Image.Image) -> None:
    data = picogram.encode(photo.resize((80, 64)), bytes=200)[:-4]
    rng = np.random.default_rng(1)
    for _ in range(60):
        body = bytearray(data)
        body[rng.integers(6, len(body))] = rng.integers(256)
        sealed = bytes(body) + zlib.crc32(bytes(body)).to_bytes(4, "little")
        with contextlib.suppress(PicogramError):
            assert picogram.decode(sealed).width >= 1


def test_rate_search_finds_the_largest_rate_that_fits() -> None:
    calls = 0

    def size(rate: int) -> float:
        nonlocal calls
        calls += 1
        return 300 * 1.015**rate

    for budget in (299, 300, 1000, 5000, 10**6):
        calls = 0
        rate = largest_rate(size, budget)
        best = max((r for r in range(256) if size(r) <= budget), default=None)
        if best is None or rate is None:
            assert rate == best
        else:
            assert best - 1 <= rate <= best
        assert calls < 300
