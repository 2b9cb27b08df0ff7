# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One intra frame of VVC (H.266) by Fraunhofer's encoder: ``vvencapp``/``vvdecapp``, or ffmpeg's libvvenc.

    RGB ── BT.709, 4:2:0, 10 bit ── y4m ── encoder ──> .vvc ── decoder ──> yuv ── bilinear chroma ── RGB

The converter is ours so that both programs see the same samples. The decoded picture has even sides: whoever
knows the original size crops it.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picogram.errors import CorruptBitstream, ModelMissing

PRESET = "medium"
MAX_QP = 63
MIN_QP = 10  # below, ffmpeg fails on files larger than the samples
_PEAK = 1023
_KR, _KB = 0.2126, 0.0722
_TIMEOUT_S = 600

Plane = NDArray[np.float32]


def to_planes(image: Image.Image) -> list[NDArray[np.uint16]]:
    """Y, Cb, Cr in full range, 10 bits, chroma averaged over 2x2; sides are padded to even by repetition."""
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = _KR * red + (1 - _KR - _KB) * green + _KB * blue
    chroma = ((blue - luma) / (2 * (1 - _KB)) + 0.5, (red - luma) / (2 * (1 - _KR)) + 0.5)
    height, width = luma.shape
    small = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in chroma]
    return [np.clip(np.rint(p * _PEAK), 0, _PEAK).astype(np.uint16) for p in (luma, *small)]


def from_planes(luma: NDArray[np.uint16], cb: NDArray[np.uint16], cr: NDArray[np.uint16]) -> Image.Image:
    """The inverse of ``to_planes`` but for the padding."""
    size = luma.shape[1], luma.shape[0]
    y = luma.astype(np.float32) / _PEAK
    u, v = (_enlarge(np.asarray(c / _PEAK - 0.5, np.float32), size) for c in (cb, cr))
    red, blue = y + 2 * (1 - _KR) * v, y + 2 * (1 - _KB) * u
    green = (y - _KR * red - _KB * blue) / (1 - _KR - _KB)
    rgb = np.stack([red, green, blue], -1)
    return Image.fromarray(np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8))


def _enlarge(plane: Plane, size: tuple[int, int]) -> Plane:
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR), np.float32)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603
    if done.returncode:
        raise CorruptBitstream(f"{Path(command[0]).name} failed: {done.stderr.strip()[-200:]}")
    return done.stdout


def _find_ffmpeg() -> str | None:
    """An ffmpeg with libvvenc: the one on PATH or the one in the ``imageio-ffmpeg`` package."""
    candidates = [shutil.which("ffmpeg")]
    with contextlib.suppress(ImportError, RuntimeError):
        candidates.append(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    for candidate in filter(None, candidates):
        if "libvvenc" in _run([candidate, "-hide_banner", "-encoders"]):
            return candidate
    return None


class VvcCodec:
    """VVC at a constant QP; quality is 63 - QP. ModelMissing where no encoder is to be had."""

    name = "vvc"
    qualities = range(MAX_QP - MIN_QP + 1)
    budgeted = False

    def __init__(self) -> None:
        apps = shutil.which("vvencapp"), shutil.which("vvdecapp")
        self._apps = (apps[0], apps[1]) if apps[0] and apps[1] else None
        self._ffmpeg = None if self._apps else _find_ffmpeg()
        if not self._apps and not self._ffmpeg:
            raise ModelMissing("the vvc codec needs vvencapp and vvdecapp, or `pip install imageio-ffmpeg`")

    @property
    def settings(self) -> dict[str, Any]:
        return {"preset": PRESET, "qpa": 0, "chroma": "4:2:0", "bits": 10, "matrix": "BT.709 full range"}

    @property
    def version(self) -> str:
        if self._apps:
            return _run([self._apps[0], "--version"]).strip().splitlines()[0]
        banner = _run([str(self._ffmpeg), "-version"])
        match = re.match(r"ffmpeg version (\S+)", banner)
        return f"libvvenc and vvc of ffmpeg {match[1] if match else '?'}"

    def encode(self, image: Image.Image, quality: int) -> bytes:
        planes = to_planes(image)
        height, width = planes[0].shape
        with tempfile.TemporaryDirectory(prefix="picogram-vvc-") as folder:
            source, target = Path(folder, "in.y4m"), Path(folder, "out.vvc")
            header = f"YUV4MPEG2 W{width} H{height} F1:1 Ip C420p10\nFRAME\n".encode()
            source.write_bytes(header + b"".join(plane.astype("<u2").tobytes() for plane in planes))
            _run(self._encoder(source, target, MAX_QP - quality))
            return target.read_bytes()

    def decode(self, data: bytes) -> Image.Image:
        with tempfile.TemporaryDirectory(prefix="picogram-vvc-") as folder:
            source, target = Path(folder, "in.vvc"), Path(folder, "out.y4m")
            source.write_bytes(data)
            _run(self._decoder(source, target))
            return _read_y4m(target.read_bytes())

    def _encoder(self, source: Path, target: Path, qp: int) -> list[str]:
        if self._apps:
            options = f"--preset {PRESET} --qp {qp} --qpa 0 --threads 1 --frames 1 --intraperiod 1".split()
            return [self._apps[0], "-i", str(source), "-o", str(target), *options]
        options = f"-frames:v 1 -c:v libvvenc -preset {PRESET} -qp {qp} -qpa 0 -threads 1 -f vvc".split()
        return [*self._quiet(), "-i", str(source), *options, str(target)]

    def _decoder(self, source: Path, target: Path) -> list[str]:
        if self._apps:
            return [self._apps[1], "-b", str(source), "-o", str(target), "--y4m", "-t", "1"]
        one_frame = ["-frames:v", "1", "-strict", "-1"]
        return [*self._quiet(), "-f", "vvc", "-i", str(source), *one_frame, str(target)]

    def _quiet(self) -> list[str]:
        return [str(self._ffmpeg), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]


def _read_y4m(data: bytes) -> Image.Image:
    """The first frame of a 4:2:0 10-bit y4m."""
    head, _, rest = data.partition(b"\n")
    match = re.search(rb" W(\d+) H(\d+) .*C420p10", head)
    if not match:
        raise CorruptBitstream("the decoder wrote no 4:2:0 10-bit picture")
    width, height = int(match[1]), int(match[2])
    samples = np.frombuffer(rest.partition(b"\n")[2], "<u2")
    area, half = width * height, (height // 2, width // 2)
    luma = samples[:area].reshape(height, width)
    cb, cr = (samples[area + i * area // 4 :][: area // 4].reshape(half) for i in range(2))
    return from_planes(luma, cb, cr)
