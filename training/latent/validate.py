# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Rate and distortion of a latent model with real file sizes, on held-out photographs or any folder.

    python -m training.latent.validate RUN/average.safetensors --photos PHOTOS --images photos1024.tar --metrics METRICS

Takes a run's weights or a shipped model. A tar gives what of it is held out (``training.photos``), a folder all its
images; of each the middle of at most ``--crop`` is coded at fixed rate indices. The table also reads the metrics off at
given bits per pixel, log-linearly; ``excess`` is detail where the original is flat, less the original's own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.latent.codec import PhotoCodec
from picogram.metrics.perceptual import load_dists, load_lpips
from training.diffusion.losses import excess
from training.latent.export import export, load_checkpoint
from training.latent.task import is_shipped
from training.photos import SUFFIXES, Pixels, bank, decode, read_tar

METRICS = ("bpp", "lpips", "dists", "psnr", "excess")


def held_out(source: Path, limit: int, crop: tuple[int, int]) -> list[Pixels]:
    """The middles of pictures, evenly taken, at most ``crop`` (width, height) large."""
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
        found = [np.asarray(Image.open(p).convert("RGB")) for p in files]
    else:
        found = [decode(f.data, f.aspect) for f in read_tar(source, held=True)]
    found = [_middle(p, crop) for p in found if min(p.shape[:2]) >= 256]
    if not found or limit < 1:
        raise SystemExit(f"{source} holds no picture to measure on with both sides of 256 pixels or more")
    return found[:: max(1, len(found) // limit)][:limit]


def _middle(picture: Pixels, crop: tuple[int, int]) -> Pixels:
    height, width = picture.shape[:2]
    wide, high = min(width, crop[0]), min(height, crop[1])
    left, top = (width - wide) // 2, (height - high) // 2
    return picture[top : top + high, left : left + wide]


def codec_of(path: Path, photos: Path, batches: int = 30) -> PhotoCodec:
    """A codec as it would ship, without writing it; or a shipped one."""
    if is_shipped(path):
        return PhotoCodec(load_file(path), model=0)
    return PhotoCodec(export(load_checkpoint(path), bank(photos, torch.device("cpu"), 7), batches), model=0)


@torch.inference_mode()
def measure(
    codec: PhotoCodec, pictures: list[Pixels], rates: list[int], metrics: Path
) -> npt.NDArray[np.float64]:
    """``[len(rates), len(pictures), 5]``: ``METRICS``, bpp of the whole file."""
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
            grain = float(excess(x, y)) - float(excess(x, x))
            rows[i, j] = 8 * size / (height * width), float(lpips(x, y)), float(dists(x, y)), psnr, grain
    return rows


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("checkpoint", type=Path)
    made.add_argument("--photos", type=Path, required=True, help="folder made by training.photos")
    made.add_argument("--images", type=Path, required=True)
    made.add_argument("--metrics", type=Path, required=True)
    made.add_argument("--limit", type=int, default=24)
    made.add_argument("--crop", type=int, nargs=2, default=(512, 384), help="width and height")
    made.add_argument("--rates", type=int, nargs="+", default=[0, 50, 100, 150, 200, 255])
    made.add_argument("--at", type=float, nargs="+", default=[0.015, 0.03, 0.05, 0.1])
    made.add_argument("--out", type=Path, help="JSON of the numbers read off")
    return made


def main() -> None:
    args = parser().parse_args()
    codec = codec_of(args.checkpoint, args.photos)
    pictures = held_out(args.images, args.limit, tuple(args.crop))
    means = measure(codec, pictures, args.rates, args.metrics).mean(1)
    for rate, row in zip(args.rates, means, strict=True):
        print(f"rate {rate:3d}  " + "  ".join(f"{n} {v:.4f}" for n, v in zip(METRICS, row, strict=True)))
    logs, found = np.log(means[:, 0]), []
    for bpp in args.at:
        at = {
            n: round(float(np.interp(np.log(bpp), logs, means[:, k])), 4)
            for k, n in enumerate(METRICS)
            if n != "bpp"
        }
        found.append({"bpp": bpp, "pictures": len(pictures), **at})
        print(json.dumps(found[-1]))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
