# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One protocol for every codec of the benchmark: an RGB picture and an integer quality in, a whole file out.

A higher quality gives a better picture and (nearly always) a larger file. Picogram's codec is ``budgeted``:
its quality *is* the number of bytes that the file may have.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, features
from PIL import __version__ as pillow_version

from picogram.bench.vvc import VvcCodec
from picogram.errors import ModelMissing, UsageError


class BenchCodec(Protocol):
    """What the search needs. ``settings`` and ``version`` go into the report."""

    @property
    def name(self) -> str: ...

    @property
    def qualities(self) -> range: ...

    @property
    def budgeted(self) -> bool: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def version(self) -> str: ...

    def encode(self, image: Image.Image, quality: int) -> bytes: ...

    def decode(self, data: bytes) -> Image.Image: ...


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes, with everything but the quality fixed."""

    name: str
    format: str
    qualities: range
    settings: dict[str, Any]
    version: str
    budgeted: bool = False

    def encode(self, image: Image.Image, quality: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, self.format, quality=quality, **self.settings)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data), formats=(self.format,)) as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class PicogramCodec:
    """This package, through its public functions; quality is the byte budget.

    ``profile``: of the files. ``steps``: of the decoder; None: what it does by default.
    """

    name: str = "picogram"
    profile: str = "base"
    steps: int | None = None
    qualities = range(0)
    budgeted = True

    @property
    def settings(self) -> dict[str, Any]:
        said = {} if self.profile == "base" else {"profile": self.profile}
        return said if self.steps is None else said | {"steps": self.steps}

    @property
    def version(self) -> str:
        return package_version()

    def encode(self, image: Image.Image, quality: int) -> bytes:
        import picogram

        data: bytes = picogram.encode(image, bytes=quality, profile=self.profile)
        return data

    def decode(self, data: bytes) -> Image.Image:
        import picogram

        image: Image.Image = picogram.decode(data, steps=self.steps)
        return image


def package_version() -> str:
    """Picogram's own version."""
    import importlib.metadata

    try:
        return importlib.metadata.version("picogram-codec")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _pillow_version(feature: str) -> str:
    return f"Pillow {pillow_version}, {feature} {features.version(feature)}"


def _jpeg() -> BenchCodec:
    settings = {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
    return PillowCodec("jpeg", "JPEG", range(1, 96), settings, _pillow_version("libjpeg_turbo"))


def _webp() -> BenchCodec:
    return PillowCodec("webp", "WEBP", range(101), {"method": 6}, _pillow_version("webp"))


def _avif() -> BenchCodec:
    settings = {"speed": 2, "subsampling": "4:2:0"}
    return PillowCodec("avif", "AVIF", range(101), settings, _pillow_version("avif"))


def _jpeg_xl() -> BenchCodec:
    from importlib.metadata import version

    try:
        import pillow_jxl  # noqa: F401  (registers itself with Pillow)
    except ImportError as error:
        raise ModelMissing("the jxl codec needs `pip install pillow-jxl-plugin`") from error
    plugin = f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"
    return PillowCodec("jxl", "JXL", range(100), {"effort": 7, "num_threads": 0}, plugin)


_PICOGRAMS = {
    codec.name: codec
    for codec in (
        PicogramCodec("picogram-base", steps=0),
        PicogramCodec("picogram-stc", "stc"),
        PicogramCodec("picogram-misc", "misc"),
        PicogramCodec("picogram-sedic", "sedic"),
        PicogramCodec("picogram-taco", "taco"),
    )
}
_MAKERS: dict[str, Callable[[], BenchCodec]] = {
    "picogram": PicogramCodec,
    "vvc": VvcCodec,
    "avif": _avif,
    "jxl": _jpeg_xl,
    "webp": _webp,
    "jpeg": _jpeg,
}
NAMES = tuple(_MAKERS)
"""Of the codecs that are compared by default. ``make`` also knows Picogram's other profiles, and its base pictures."""


def make(name: str) -> BenchCodec:
    """The codec of that name; UsageError if there is none, ModelMissing if what it needs is missing."""
    if name in _PICOGRAMS:
        return _PICOGRAMS[name]
    if name not in _MAKERS:
        raise UsageError(f"no codec is named {name!r}; there are {', '.join((*NAMES, *_PICOGRAMS))}")
    return _MAKERS[name]()


def available() -> list[str]:
    """Names of the codecs compared by default that this machine can run, Picogram first."""
    names = []
    for name in NAMES:
        try:
            make(name)
        except ModelMissing:
            continue
        names.append(name)
    return names
