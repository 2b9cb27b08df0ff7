# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Do files decode to the same integers under every thread count, batch size and kernel?

    python benchmarks/exactness.py --images 500 --json benchmarks/results/exactness.json

Random pictures (gradients, edges, noise) at random rates are encoded alone on one thread; every file is then decoded
with 1 and 2 threads, in batches of 1 and 8, and a share of them with the float32 and int64 kernels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file

from picogram.latent.codec import PhotoCodec, load_codec, prior_tensors
from picogram.latent.coding import decode_latents, encode_latents
from picogram.latent.exact_prior import ExactPrior
from picogram.models import DEFAULT_LATENT, latent_weights

BATCH = 8
SIDE = 128


def picture(rng: np.random.Generator) -> np.ndarray:
    """A random picture ``[128, 128, 3] uint8``."""
    cells = rng.integers(0, 256, (rng.integers(1, 12), rng.integers(1, 12), 3), dtype=np.uint8)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
    base = Image.fromarray(cells).resize((SIDE, SIDE), filters[rng.integers(2)])
    noise = rng.normal(0, rng.uniform(0, 60), (SIDE, SIDE, 3))
    return np.clip(np.asarray(base) + noise, 0, 255).astype(np.uint8)


def compare(codec: PhotoCodec, others: list[ExactPrior], rng: np.random.Generator) -> tuple[int, int]:
    """Checks and mismatches over one batch of pictures."""
    rates = rng.integers(0, 256, BATCH).tolist()
    strings, expected = [], []
    torch.set_num_threads(1)
    with torch.inference_mode():
        for rate in rates:
            y, z = codec._latents(codec.analyse(picture(rng)), rate)
            data, y_hat = encode_latents(codec.prior, y, z, [rate])
            strings += data
            expected.append(y_hat)
        wanted = torch.cat(expected)
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(decode_latents(codec.prior, strings, rates, *wanted.shape[2:]))
            alone = [
                decode_latents(codec.prior, [s], [r], *wanted.shape[2:])
                for s, r in zip(strings, rates, strict=True)
            ]
            results.append(torch.cat(alone))
        results += [decode_latents(other, strings, rates, *wanted.shape[2:]) for other in others]
    wrong = sum(int((found != wanted).flatten(1).any(1).sum()) for found in results)
    return len(results) * BATCH, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    codec = load_codec()
    tensors = load_file(latent_weights(DEFAULT_LATENT))
    integers = prior_tensors(tensors)
    others = [ExactPrior(integers, codec.prior.config, kernel) for kernel in ("float32", "int64")]
    rng, begun, checks, wrong = np.random.default_rng(1), time.time(), 0, 0
    batches = -(-args.images // BATCH)
    for i in track(range(batches), "Decoding", console=Console(stderr=True)):
        done, bad = compare(codec, others if i % 10 == 0 else [], rng)
        checks, wrong = checks + done, wrong + bad
    result = {
        "images": batches * BATCH,
        "decodes": checks,
        "mismatches": wrong,
        "threads": [1, 2],
        "batches": [1, BATCH],
        "kernels": ["float64", "float32", "int64"],
        "model": DEFAULT_LATENT,
        "seconds": round(time.time() - begun, 1),
    }
    print(json.dumps(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
