# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Picogram's main job, end to end: real photographs through a real server, beside AVIF of the same size.

    skimage photos ──POST /v1/encode?bpp=──> .pico ──POST /v1/decode──> PNG ──> table, side-by-side.png

Run ``scripts/demo``, or ``python examples/demo.py`` where ``picogram-codec[demo]`` is installed. The photos
come with scikit-image: nothing is downloaded.
"""

from __future__ import annotations

import io
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table

from picogram.metrics.fidelity import ms_ssim, psnr

OUT = Path("demo-out")
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
BUDGETS = (0.02, 0.04, 0.08)
AVIF_SCALES = (1, 2, 4)
CELL, LABEL, GAP = 384, 24, 8
START_SECONDS = 180

Metrics = dict[str, float]
Measure = Callable[[Image.Image, Image.Image], Metrics]
console = Console(width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Coded:
    """One photo through one codec; seconds are wall time of the whole call, None where none was made."""

    photo: str
    codec: str
    budget: float
    data: bytes
    picture: Image.Image
    metrics: Metrics
    encode_seconds: float | None = None
    decode_seconds: float | None = None

    @property
    def bpp(self) -> float:
        """Bits per pixel of the whole file."""
        return 8 * len(self.data) / (self.picture.width * self.picture.height)


@contextmanager
def server() -> Iterator[httpx2.Client]:
    """The embedded server in a process of its own, on a free loopback port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = OUT / "server.log"
    command = [sys.executable, "-m", "picogram_gateway", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)  # noqa: S603
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client:
                wait_until_ready(client, process, log)
                yield client
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(client: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once /readyz says so; otherwise end with the server's last words."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"the server did not become ready; the end of {log}:\n{log.read_text()[-2000:]}")


def post(client: httpx2.Client, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, float]:
    """The answer's body and the seconds it took; a problem ends the demo with its text."""
    started = time.perf_counter()
    response = client.post(path, content=body, headers=headers)
    if response.status_code != 200:
        sys.exit(f"{path} answered {response.status_code}: {response.text}")
    return response.content, time.perf_counter() - started


def picogram_file(client: httpx2.Client, photo: str, original: Image.Image, budget: float) -> Coded:
    """Encode over HTTP, keep the file, decode it over HTTP."""
    data, encode_seconds = post(
        client, f"/v1/encode?bpp={budget}", png(original), {"content-type": "image/png"}
    )
    (OUT / f"{photo}-{budget:.2f}.pico").write_bytes(data)
    headers = {"content-type": "application/vnd.picogram", "accept": "image/png"}
    image, decode_seconds = post(client, "/v1/decode", data, headers)
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    return Coded(photo, "picogram", budget, data, picture, {}, encode_seconds, decode_seconds)


def avif_like(coded: Coded, original: Image.Image) -> Coded:
    """The AVIF to compare with: at least as large as our file, and as near to it as possible.

    Full, half and quarter resolution are tried, as AVIF is better small than crushed; of files within 10 %
    of the nearest size, the one with the best MS-SSIM is taken.
    """
    options = [smallest_avif(original, scale, len(coded.data)) for scale in AVIF_SCALES]
    nearest = min(len(data) for data, _ in options)
    near = [option for option in options if len(option[0]) <= 1.1 * nearest]
    data, picture = max(near, key=lambda option: ms_ssim(original, option[1]))
    return Coded(coded.photo, "avif", coded.budget, data, picture, {})


def smallest_avif(original: Image.Image, scale: int, at_least: int) -> tuple[bytes, Image.Image]:
    """Bisect AVIF's quality for the smallest file not below ``at_least`` bytes; also what it decodes to."""
    small = original.resize(
        (max(1, original.width // scale), max(1, original.height // scale)), Image.Resampling.LANCZOS
    )
    low, high = 0, 100
    while low < high:
        middle = (low + high) // 2
        if len(avif(small, middle)) >= at_least:
            high = middle
        else:
            low = middle + 1
    data = avif(small, low)
    return data, Image.open(io.BytesIO(data)).convert("RGB").resize(original.size, Image.Resampling.BICUBIC)


def avif(image: Image.Image, quality: int) -> bytes:
    """One AVIF file."""
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", quality=quality, speed=6, subsampling="4:2:0")
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """One PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def make_measure() -> Measure:
    """PSNR and MS-SSIM always; LPIPS and DISTS where their weights are at hand."""
    import torch

    from picogram.metrics import perceptual, weights

    folder = weights.find()
    if folder is None:
        console.print(f"LPIPS and DISTS are left out; `{weights.PULL_COMMAND}` fetches their weights")
        networks = {}
    else:
        networks = {"LPIPS": perceptual.load_lpips(folder), "DISTS": perceptual.load_dists(folder)}

    def measure(original: Image.Image, picture: Image.Image) -> Metrics:
        metrics = {"PSNR": psnr(original, picture), "MS-SSIM": ms_ssim(original, picture)}
        x, y = (
            torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 for image in (original, picture)
        )
        with torch.inference_mode():
            return metrics | {name: float(network(x, y)) for name, network in networks.items()}

    return measure


def measured(coded: Coded, original: Image.Image, measure: Measure) -> Coded:
    """The same with its metrics."""
    facts = {**vars(coded), "metrics": measure(original, coded.picture)}
    return Coded(**facts)


def side_by_side(originals: dict[str, Image.Image], pairs: Sequence[tuple[Coded, Coded]]) -> Path:
    """One row per photo and rate: original, AVIF, Picogram, each with its bytes and bits per pixel."""
    heights = [round(CELL * originals[ours.photo].height / originals[ours.photo].width) for ours, _ in pairs]
    width = 3 * CELL + 4 * GAP
    sheet = Image.new("RGB", (width, 2 * LABEL + sum(heights) + len(pairs) * (LABEL + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    draw.text((GAP, 4), "original | AVIF, not smaller | Picogram (partly imagined)", "black", font)
    top = LABEL + GAP
    for (ours, theirs), height in zip(pairs, heights, strict=True):
        original = originals[ours.photo]
        pictures = (original, theirs.picture, ours.picture)
        labels = (f"{ours.photo} {original.width}x{original.height}", label(theirs), label(ours))
        for column, (picture, text) in enumerate(zip(pictures, labels, strict=True)):
            left = GAP + column * (CELL + GAP)
            draw.text((left, top), text, "black", font)
            sheet.paste(picture.resize((CELL, height), Image.Resampling.LANCZOS), (left, top + LABEL))
        top += LABEL + height + GAP
    path = OUT / "side-by-side.png"
    sheet.save(path)
    return path


def label(coded: Coded) -> str:
    """What stands above a picture."""
    return f"{coded.codec}: {len(coded.data)} bytes, {coded.bpp:.4f} bpp"


def rows(results: Sequence[Coded]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of the table."""
    names = list(results[0].metrics)
    header = ["photo", "codec", "bytes", "bpp", "enc s", "dec s", *names]
    cells = [
        [
            *(each.photo, each.codec, str(len(each.data)), f"{each.bpp:.4f}"),
            *(seconds(each.encode_seconds), seconds(each.decode_seconds)),
            *(
                f"{each.metrics[name]:.2f}" if name == "PSNR" else number(each.metrics[name])
                for name in names
            ),
        ]
        for each in results
    ]
    return header, cells


def seconds(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def number(value: float) -> str:
    """Four decimals, or a dash for what could not be measured."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def show(header: list[str], cells: list[list[str]]) -> Path:
    """Print the table, and write it as Markdown."""
    table = Table(
        title="PSNR, MS-SSIM: higher is better; LPIPS, DISTS: lower is better",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row, style="bold" if row[1] == "picogram" else "dim", end_section=row[1] == "avif")
    console.print(table)
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *cells]
    path = OUT / "table.md"
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return path


def main() -> None:
    """Four photos, three budgets."""
    OUT.mkdir(exist_ok=True)
    measure = make_measure()
    originals = {name: Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOS}
    pairs = []
    console.print("Starting the server and loading its models …")
    with server() as client:
        for photo, original in originals.items():
            for budget in BUDGETS:
                console.print(f"{photo} at {budget:.2f} bpp")
                ours = picogram_file(client, photo, original, budget)
                theirs = avif_like(ours, original)
                pairs.append((measured(ours, original, measure), measured(theirs, original, measure)))
    picture = side_by_side(originals, pairs)
    table = show(*rows([coded for pair in pairs for coded in pair]))
    console.print("Reconstructions are partly imagined: not for evidence, medicine or identity.")
    console.print(f"Picture: {picture}\nTable:   {table}")


if __name__ == "__main__":
    main()
