# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Rate and distortion of a checkpoint with real file sizes, on held-out photographs or any folder.

    python -m training.validate RUN/last.pt --data CROPS --images photos.tar --metrics WEIGHTS --limit 24

A tar gives its last tenth by name (the split that training never sees), a folder all its images. Every picture is
coded at fixed rate indices; the table also reads the metrics off at given bits per pixel, log-linearly.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.latent.codec import PhotoCodec
from picogram.metrics.perceptual import load_dists, load_lpips
from training.export_latent import export, load_checkpoint
from training.pack import HOLD_OUT, read_source
from training.train_latent import Crops

METRICS = ("bpp", "lpips", "dists", "psnr")
MAX_SIDE = 768


def held_out(source: Path, limit: int) -> list[np.ndarray]:
    """Pictures of at most 768 pixels a side and at least 256, evenly taken."""
    entries = read_source(source)
    if not source.is_dir():
        entries = entries[int(len(entries) * (1 - HOLD_OUT)) :]
    pictures = []
    for _, data in entries:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        if min(image.size) >= 256:
            image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            pictures.append(np.asarray(image))
    step = max(1, len(pictures) // limit)
    return pictures[::step][:limit]


def codec_of(checkpoint: Path, data: Path, batches: int = 30) -> PhotoCodec:
    """A codec as it would ship, without writing it."""
    model, _ = load_checkpoint(checkpoint)
    return PhotoCodec(export(model, Crops(data, "train", 7), batches), model=0)


@torch.inference_mode()
def measure(codec: PhotoCodec, pictures: list[np.ndarray], rates: list[int], metrics: Path) -> np.ndarray:
    """``[len(rates), len(pictures), 4]``: bpp of the whole file, LPIPS (alex), DISTS, PSNR."""
    lpips, dists = load_lpips(metrics), load_dists(metrics)
    rows = np.zeros((len(rates), len(pictures), len(METRICS)))
    for j, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        analysed = codec.analyse(picture)
        for i, rate in enumerate(rates):
            section = codec.section(analysed, rate)
            size = len(serialise(Picogram(Header(Profile.BASE, width, height, 1), section)))
            x, y = (
                torch.from_numpy(np.array(v)).permute(2, 0, 1)[None].float() / 255
                for v in (picture, codec.decode(section, width, height))
            )
            psnr = -10 * np.log10(float((x - y).square().mean()))
            rows[i, j] = 8 * size / (height * width), float(lpips(x, y)), float(dists(x, y)), psnr
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 50, 100, 150, 200, 255])
    parser.add_argument("--at", type=float, nargs="+", default=[0.015, 0.03, 0.05])
    args = parser.parse_args()
    codec = codec_of(args.checkpoint, args.data)
    means = measure(codec, held_out(args.images, args.limit), args.rates, args.metrics).mean(1)
    for rate, row in zip(args.rates, means, strict=True):
        print(f"rate {rate:3d}  " + "  ".join(f"{n} {v:.4f}" for n, v in zip(METRICS, row, strict=True)))
    logs = np.log(means[:, 0])
    for bpp in args.at:
        at = {n: round(float(np.interp(np.log(bpp), logs, means[:, k])), 4) for k, n in enumerate(METRICS)}
        print(json.dumps(at | {"bpp": bpp}))


if __name__ == "__main__":
    main()
