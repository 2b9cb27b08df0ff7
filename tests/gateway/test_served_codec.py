# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The main job over HTTP and over the command line, with the shipped model and real photographs."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gateway_apps import check_problem, until_ready
from PIL import Image
from starlette.testclient import TestClient

import picogram
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend

PICOGRAM = {"content-type": "application/vnd.picogram"}


@pytest.fixture(scope="module")
def server() -> Iterator[TestClient]:
    with TestClient(create_app(GatewaySettings(), embedded_backend())) as client:
        yield until_ready(client)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_photograph_goes_there_and_back(server: TestClient, photo: Image.Image) -> None:
    encoded = server.post("/v1/encode?bytes=500", content=png(photo), headers={"content-type": "image/png"})
    assert encoded.status_code == 200
    assert encoded.headers["content-type"] == "application/vnd.picogram"
    assert len(encoded.content) <= 500
    assert float(encoded.headers["x-picogram-bpp"]) == pytest.approx(
        8 * len(encoded.content) / 256**2, abs=1e-5
    )
    decoded = server.post("/v1/decode", content=encoded.content, headers=PICOGRAM)
    assert decoded.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(decoded.content))
    assert picture.size == photo.size
    error = np.square(np.asarray(picture, float) - np.asarray(photo, float)).mean()
    assert error < 0.3 * np.asarray(photo, float).var()


def test_the_server_writes_what_the_library_writes(server: TestClient, photo: Image.Image) -> None:
    served = server.post("/v1/encode?quality=20", content=png(photo), headers={"content-type": "image/png"})
    assert served.content == picogram.encode(photo, quality=20)


@pytest.mark.parametrize("kind", ["image/webp", "image/avif", "image/jpeg"])
def test_the_picture_comes_in_the_type_asked_for(server: TestClient, photo: Image.Image, kind: str) -> None:
    data = picogram.encode(photo, bytes=200)
    decoded = server.post("/v1/decode", content=data, headers=PICOGRAM | {"accept": kind})
    assert decoded.headers["content-type"] == kind
    assert Image.open(io.BytesIO(decoded.content)).size == photo.size


def test_inspection_adds_up(server: TestClient, photo: Image.Image) -> None:
    data = picogram.encode(photo, bytes=300)
    facts = server.post("/v1/inspect", content=data, headers=PICOGRAM).json()
    assert facts["header_bytes"] + sum(facts["sections"].values()) == len(data)


def test_damaged_files_are_problems(server: TestClient, photo: Image.Image) -> None:
    data = picogram.encode(photo, bytes=300)
    foreign = serialise(Picogram(Header(Profile.BASE, 64, 64, 999), b"\x10"))
    vast = serialise(Picogram(Header(Profile.BASE, 60_000, 60_000, 1), b"\x10"))
    cases = [
        (data[:-1], 422, "corrupt-bitstream"),
        (b"hello", 415, "not-a-picogram"),
        (bytes([data[0] ^ 3]) + data[1:], 422, "unsupported-version"),
        (foreign, 422, "unknown-model"),
        (vast, 413, "limit-exceeded"),
    ]
    for body, status, slug in cases:
        check_problem(server.post("/v1/decode", content=body, headers=PICOGRAM), status, slug)
    tiny = server.post("/v1/encode?bytes=10", content=png(photo), headers={"content-type": "image/png"})
    check_problem(tiny, 422, "budget-too-small")


def test_the_command_line_decodes_in_a_fresh_process_what_it_encoded(
    photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "picogram.cli.main"]
    subprocess.run([*command, "encode", tmp_path / "photo.png", "--bytes", "400"], check=True, timeout=120)
    file = (tmp_path / "photo.pico").read_bytes()
    assert len(file) <= 400
    subprocess.run(
        [*command, "decode", tmp_path / "photo.pico", "-o", tmp_path / "back.png"], check=True, timeout=120
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "back.png")), np.asarray(picogram.decode(file)))


def test_a_valid_checksum_over_garbage_is_answered_quickly(server: TestClient) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        body = bytes([0b10111_001, 0]) + b"\x40\x40\x01" + rng.bytes(int(rng.integers(1, 60)))
        sealed = body + zlib.crc32(body).to_bytes(4, "little")
        begun = time.monotonic()
        assert server.post("/v1/decode", content=sealed, headers=PICOGRAM).status_code in (200, 422)
        assert time.monotonic() - begun < 10
