# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The three verbs: encode, decode, inspect. Models load on first use; importing this is cheap."""

from __future__ import annotations

import builtins
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from picogram import images
from picogram.bitstream import Limits, Picogram, Profile, parse
from picogram.errors import UnsupportedProfile, UsageError

ImageSource = Image.Image | np.ndarray[Any, Any] | builtins.bytes | str | Path | BinaryIO

DEFAULT_QUALITY = 35.0
FINEST_RATE = 255


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself and where its bytes went. ``rate`` is the rate index 0..255."""

    version: int
    profile: str
    width: int
    height: int
    downscale: int
    model: int
    rate: int
    file_bytes: int
    bpp: float
    header_bytes: int
    sections: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def encode(
    image: ImageSource,
    *,
    bytes: int | None = None,
    bpp: float | None = None,
    quality: float | None = None,
    profile: str = "base",
) -> builtins.bytes:
    """Code an image as a whole ``.pico`` file.

    Give at most one of ``bytes`` (never exceeded), ``bpp`` (bits per original pixel, never exceeded) and ``quality``
    (0 to 100); the default is quality 35. Raises ImageError for bad images, UsageError for bad arguments and
    BudgetTooSmall where no file fits.
    """
    if sum(value is not None for value in (bytes, bpp, quality)) > 1:
        raise UsageError("give at most one of bytes, bpp and quality")
    _check_number("bytes", bytes, 1, 2**40)
    _check_number("bpp", bpp, 1e-6, 1e6)
    _check_number("quality", quality, 0, 100)
    if profile != "base":
        known = profile in {p.name.lower() for p in Profile}
        raise UnsupportedProfile(
            f"profile {profile!r} {'cannot be encoded yet' if known else 'is not known'}"
        )
    from picogram.profiles import base

    picture = _read(image)
    if bpp is not None:
        bytes = math.floor(bpp * picture.width * picture.height / 8)
    if bytes is not None:
        return base.encode_within(picture, bytes)
    return base.encode_quality(
        picture, round((DEFAULT_QUALITY if quality is None else quality) / 100 * FINEST_RATE)
    )


def decode(data: builtins.bytes, *, limits: Limits | None = None) -> Image.Image:
    """The picture of a ``.pico`` file: RGB, at its original size. Raises BitstreamError subclasses."""
    picogram = _parse(data, limits)
    if picogram.header.profile is not Profile.BASE or picogram.optional:
        raise UnsupportedProfile(
            f"profile {picogram.header.profile.name.lower()} cannot be decoded by this version"
        )
    from picogram.profiles import base

    return base.decode(picogram)


def inspect(data: builtins.bytes, *, limits: Limits | None = None) -> Inspection:
    """Read a file's header and section sizes without decoding it; needs no model. Raises BitstreamError subclasses."""
    picogram = _parse(data, limits)
    header = picogram.header
    sections = {"latent": len(picogram.latent)} | {k: len(v) for k, v in picogram.optional.items()}
    return Inspection(
        version=header.version,
        profile=header.profile.name.lower(),
        width=header.width,
        height=header.height,
        downscale=1 << header.halvings,
        model=header.model,
        rate=picogram.latent[0],
        file_bytes=len(data),
        bpp=8 * len(data) / (header.width * header.height),
        header_bytes=len(data) - sum(sections.values()),
        sections=sections,
    )


def _parse(data: builtins.bytes, limits: Limits | None) -> Picogram:
    if not isinstance(data, builtins.bytes | bytearray | memoryview):
        raise UsageError(f"expected the bytes of a .pico file, not {type(data).__name__}")
    return parse(builtins.bytes(data), limits)


def _read(image: ImageSource) -> Image.Image:
    if isinstance(image, Image.Image):
        return images.normalise(image)
    if isinstance(image, np.ndarray):
        return images.from_array(image)
    return images.read_image(Path(image) if isinstance(image, str) else image)


def _check_number(name: str, value: float | None, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}")
