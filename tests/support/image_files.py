# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Image files made by hand: what Pillow writes, and what it would never write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """A colour gradient with the red corner at the top left."""
    y, x = np.mgrid[0:height, 0:width]
    samples = np.stack([255 - x * 255 // width, x * 255 // width, y * 255 // height], axis=-1)
    return Image.fromarray(samples.astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[Any]:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def gray16() -> NDArray[Any]:
    return np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_gray(samples: bytes, width: int, height: int, bits: int, photometric: int) -> bytes:
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 9 * 12 + 4)]
    tags += [(277, 1), (278, height), (279, len(samples))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag > 270 else 3, 1, value) for tag, value in tags)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4) + samples


def display_profile(primaries: list[list[float]], gamma: float) -> bytes:
    """An ICC v2 matrix profile; rows of ``primaries`` are the D50 XYZ of red, green and blue."""

    def fixed(values: list[float]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0"}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed([0.9642, 1.0, 0.8249])
    for channel, xyz in zip(b"rgb", primaries, strict=True):
        tags[bytes([channel]) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(xyz)
        tags[bytes([channel]) + b"TRC"] = curve
    table, body = b"", b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    header = bytes(4) + b"test" + bytes.fromhex("02400000") + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    header = (header + bytes(28) + fixed([0.9642, 1.0, 0.8249])).ljust(128, b"\0")
    whole = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]


# Adobe RGB (1998) and sRGB, both adapted to D50: rows are XYZ of red, green, blue.
ADOBE = [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
SRGB = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
ADOBE_LIKE = display_profile(ADOBE, 2.2)


def adobe_to_srgb(colour: tuple[int, int, int]) -> NDArray[Any]:
    """The same conversion by hand, for colours inside sRGB."""
    linear = (np.array(colour) / 255) ** 2.2 @ np.array(ADOBE) @ np.linalg.inv(np.array(SRGB))
    assert (linear > 0.0031308).all()
    return np.asarray(255 * (1.055 * linear ** (1 / 2.4) - 0.055))
