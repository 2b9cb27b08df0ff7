# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a decoder knows of a photo before any word: pooled latents of the shipped codec, at random sizes and rates.

    python -m training.words.extract_latents --data photos.tar --out LATENTS/photos --variants 2

Writes ``grids.npy`` ``[N, variants, 2C, 8, 8]`` and ``names.json``, photos sorted by name; odd variants are mirrored.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from picogram.latent.codec import PhotoCodec, load_codec
from picogram.latent.coding import walk_values
from picogram.latent.exact_prior import RATE_COUNT
from training.photos import read_source

GRID = 8
SIZES = ((288, 288), (384, 288), (288, 384), (320, 320), (224, 224), (448, 336))
BATCH = 8
MAX_RATE = 200


@torch.inference_mode()
def decoded_latents(codec: PhotoCodec, pictures: Tensor, rates: list[int]) -> Tensor:
    """``pictures [B, 3, H, W] 0..1`` with sides multiples of 32: latents as a decoder has them, gains undone."""
    height, width = (side // 16 for side in pictures.shape[2:])
    padded = F.pad(pictures, (0, -pictures.shape[3] % 64, 0, -pictures.shape[2] % 64), mode="replicate")
    position = torch.tensor(rates) / (RATE_COUNT - 1)
    gain = codec.net.gain(position)
    y = codec.net.analyse(padded, position) * gain
    z = codec.net.prior.hyper_analysis(y)[:, :, : -(-height // 4), : -(-width // 4)]
    steps = walk_values(codec.prior, y[:, :, :height, :width], z, rates, lambda *_: None)
    found: Tensor = steps.float() / gain
    return found


def pooled(latents: Tensor) -> Tensor:
    """Mean and mean magnitude on a fixed grid: ``[B, C, h, w]`` to ``[B, 2C, 8, 8]``."""
    return F.adaptive_avg_pool2d(torch.cat((latents, latents.abs()), 1), GRID)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    photos = read_source(args.data)
    codec, rng = load_codec(), random.Random(1)
    channels = codec.net.log_gain.shape[1]
    shape = (len(photos), args.variants, 2 * channels, GRID, GRID)
    grids = np.lib.format.open_memmap(args.out / "grids.npy", "w+", np.float16, shape)
    (args.out / "names.json").write_text(json.dumps([name for name, _ in photos]))
    for variant in range(args.variants):
        for start in range(0, len(photos), BATCH):
            size = rng.choice(SIZES)
            group = [load(data, size, variant % 2 == 1) for _, data in photos[start : start + BATCH]]
            rates = [rng.randrange(MAX_RATE) for _ in group]
            grids[start : start + BATCH, variant] = pooled(decoded_latents(codec, torch.stack(group), rates))
            if start % 800 == 0:
                print(variant, start, flush=True)


def load(data: bytes, size: tuple[int, int], mirrored: bool) -> Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    image = ImageOps.mirror(image) if mirrored else image
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(255)


if __name__ == "__main__":
    main()
