# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A codec whose files hold the options in place of a latent, for tests of the command line that need no model."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import picogram
from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.errors import BudgetTooSmall
from picogram.images import read_image
from picogram.pipeline.draw import Watch
from picogram.request import DecodeOptions, EncodeOptions
from picogram.results import Decoded, Encoded


def fake_encode(image: Any, options: EncodeOptions) -> Encoded:
    picture = read_image(image)
    if options.bytes is not None and options.bytes < 10:
        raise BudgetTooSmall("no file of this picture\nfits")
    header = Header(options.spec.code, picture.width, picture.height, 1)
    return Encoded(serialise(Picogram(header, str(asdict(options)).encode())))


def fake_decode(data: bytes, options: DecodeOptions | None = None, *, watch: Watch | None = None) -> Decoded:
    header = parse(data).header
    return Decoded(Image.new("RGB", (header.width, header.height), "red"))


def fake_inspect(data: bytes) -> Any:
    width, height = fake_decode(data).picture.size
    described = {"width": width, "bpp": 8 * len(data) / width / height, "sections": {"latent": 3, "text": 4}}
    return SimpleNamespace(bpp=described["bpp"], details={}, as_dict=lambda: described)


@pytest.fixture(autouse=True)
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PICOGRAM_DEBUG", raising=False)
    monkeypatch.setattr(picogram, "encode_detailed", fake_encode)
    monkeypatch.setattr(picogram, "decode_detailed", fake_decode)
    monkeypatch.setattr(picogram, "inspect", fake_inspect)


def photo(name: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "blue").save(path)
    return path


def pico(name: str) -> Path:
    """A file of 12 bytes."""
    Path(name).write_bytes(serialise(Picogram(Header(Profile.BASE, 8, 6, 1), b"\x09xy")))
    return Path(name)


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def listing() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())
