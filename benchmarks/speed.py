# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How long Picogram takes and how much memory, with AVIF by Pillow as the yardstick of the same run.

    python -m benchmarks.speed --image photo.png --out speed.json

Measured: encode and decode of 768x512 (warm, median), by stage where the codec tells; the command line from
nothing to the first byte; peak resident memory of a fresh process, at 768x512 and at 12 megapixels.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

SIZE = (768, 512)
LARGE = (4000, 3000)
BPP = 0.03
AVIF = {"quality": 40, "speed": 6}


def picture(path: Path | None, size: tuple[int, int]) -> Image.Image:
    """The given photo at that size, or a synthetic one of smooth shapes, edges and noise."""
    if path:
        with Image.open(path) as image:
            return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8)).resize(size)
    noisy = np.asarray(coarse) + random.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def budget(size: tuple[int, int]) -> int:
    """Bytes of a file of ``BPP``."""
    return int(BPP * size[0] * size[1] / 8)


def median(action: Callable[[], Any], repeats: int) -> float:
    """Seconds of the median run after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def stages(image: Image.Image, coded: bytes, repeats: int) -> dict[str, float]:
    """Seconds by stage: the networks, the integer prior with the coder, and the range coder by itself."""
    import torch

    from picogram.bitstream import parse
    from picogram.latent.codec import load_codec
    from picogram.latent.coding import decode_latents, encode_latents

    codec, file, pixels = load_codec(), parse(coded), np.asarray(image)
    rate, string = file.latent[0], file.latent[1:]
    with torch.inference_mode():
        analysed = codec.analyse(pixels)
        y, z = codec._latents(analysed, rate)
        size = analysed.height, analysed.width
        runs = _runs(codec, y, z, rate)
        return {
            "analysis": median(lambda: codec._latents(codec.analyse(pixels), rate), repeats),
            "prior_and_coder_encode": median(lambda: encode_latents(codec.prior, y, z, [rate]), repeats),
            "prior_and_coder_decode": median(
                lambda: decode_latents(codec.prior, [string], [rate], *size), repeats
            ),
            "range_coder_encode": median(lambda: _put(runs), repeats),
            "range_coder_decode": median(lambda: _get(string, runs), repeats),
        }


def _runs(codec: Any, y: Any, z: Any, rate: int) -> list[tuple[Any, Any]]:
    """Every run of symbols of a file and its table, in coding order."""
    from picogram.bitstream.rangecoder import RangeEncoder
    from picogram.latent import coding

    found: list[tuple[Any, Any]] = []

    class Recorder(RangeEncoder):
        def put(self, symbols: Any, table: Any) -> None:
            found.append((symbols, table))

    with patch.object(coding, "RangeEncoder", Recorder):
        coding.encode_latents(codec.prior, y, z, [rate])
    return found


def _put(runs: list[tuple[Any, Any]]) -> bytes:
    from picogram.bitstream.rangecoder import RangeEncoder

    encoder = RangeEncoder()
    for symbols, table in runs:
        encoder.put(symbols, table)
    return encoder.finish()


def _get(string: bytes, runs: list[tuple[Any, Any]]) -> None:
    from picogram.bitstream.rangecoder import RangeDecoder

    decoder = RangeDecoder(string)
    for symbols, table in runs:
        decoder.get(len(symbols), table)


def avif_encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", **AVIF)
    return buffer.getvalue()


def avif_decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def warm(image: Image.Image, repeats: int) -> dict[str, Any]:
    """Warm encode and decode, and the same of the baseline."""
    import picogram

    limit, coded_avif = budget(image.size), avif_encode(image)
    coded = picogram.encode(image, bytes=limit)
    found: dict[str, Any] = {"bytes": len(coded), "avif_bytes": len(coded_avif)}
    found["encode_budget"] = median(lambda: picogram.encode(image, bytes=limit), repeats)
    found["encode_quality"] = median(lambda: picogram.encode(image, quality=35), repeats)
    found["stages"] = stages(image, coded, repeats)
    found["decode"] = median(lambda: picogram.decode(coded), repeats)
    found["avif_encode"] = median(lambda: avif_encode(image), repeats)
    found["avif_decode"] = median(lambda: avif_decode(coded_avif), repeats)
    for action in ("encode_budget", "encode_quality", "decode"):
        baseline = "avif_decode" if action == "decode" else "avif_encode"
        found[f"{action}_ratio"] = found[action] / found[baseline]
    return found


def peak_mebibytes() -> float:
    """Peak resident memory of this program (Linux's getrusage would count the parent's before exec)."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def child(task: str, path: Path | None) -> None:
    """One measurement in a process of its own: prints a JSON object."""
    import picogram

    size = LARGE if task == "large" else SIZE
    image = picture(path, size)
    before, start = peak_mebibytes(), time.perf_counter()
    coded = picogram.encode(image, bytes=budget(size))
    middle, after_encode = time.perf_counter(), peak_mebibytes()
    picogram.decode(coded)
    seconds = {"encode": middle - start, "decode": time.perf_counter() - middle}
    peaks = {"before_mib": before, "encode_mib": after_encode, "peak_mib": peak_mebibytes()}
    print(json.dumps({"size": size, "bytes": len(coded)} | seconds | peaks))


def in_process(task: str, path: Path | None) -> dict[str, Any]:
    """Run ``child`` in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", task]
    command += ["--image", str(path)] if path else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cold_start(image: Image.Image, repeats: int) -> dict[str, float]:
    """Seconds from starting the command to the first byte of the file; also of ``--version`` and bare Python."""
    cli = [sys.executable, "-m", "picogram.cli.main"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.png")
        image.save(source, compress_level=1)
        encode = [*cli, "encode", str(source), "--bytes", str(budget(image.size)), "-o", "-"]
        return {
            "encode": median(functools.partial(_first_byte, encode), repeats),
            "version": median(functools.partial(_first_byte, [*cli, "--version"]), repeats),
            "python": median(functools.partial(_first_byte, [sys.executable, "-c", "print()"]), repeats),
        }


def _first_byte(command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        if process.stdout is None or not process.stdout.read(1):
            raise RuntimeError(f"{' '.join(command)} printed nothing")
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")


def show(name: str, value: Any, indent: int = 0) -> None:
    """Nested numbers, one a line."""
    pad = "  " * indent
    if isinstance(value, dict):
        print(f"{pad}{name}")
        for key, inner in value.items():
            show(key, inner, indent + 1)
    else:
        print(f"{pad}{name:<18} {value:.4g}" if isinstance(value, float) else f"{pad}{name:<18} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", type=Path, help="a photo; otherwise a synthetic picture")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip-large", action="store_true", help="leave out the 12-megapixel picture")
    parser.add_argument("--child", choices=("small", "large"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.image)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    image = picture(given.image, SIZE)
    results: dict[str, Any] = {
        "machine": {"arch": platform.machine(), "cores": cores},
        "bpp": BPP,
        "avif": AVIF,
    }
    results["warm_s"] = warm(image, given.repeats)
    results["cold_start_s"] = cold_start(image, max(1, given.repeats // 2))
    results["process_768x512"] = in_process("small", given.image)
    if not given.skip_large:
        results["process_12mp"] = in_process("large", given.image)
    show("speed", results)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
