# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Samples a second of training a latent model, against how it was trained before, in one process.

    python -m benchmarks.training_speed --photos PHOTOS --metrics METRICS --out OUT.json [--seconds 60]

Baseline: the present model with the losses that made latent-2 (VGG on half of the samples, batch 8). The same model with
Stage A's losses comes next, then the model with a trunk. Each is warmed up, then timed; ratios are against the baseline.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from picogram.models import DEFAULT_LATENT, latent_weights
from training.devices import device_of
from training.engine import TrainingEngine
from training.latent.task import LatentTask, made
from training.phases import Phase
from training.photos import bank

Weights = dict[str, float]

BEFORE: Weights = {
    "mse": 60,
    "lpips_alex": 1.3,
    "lpips_vgg": 0.5,
    "dists": 1.5,
    "vgg_crop": 96,
    "vgg_share": 0.5,
}
STAGE_A: Weights = {"mse": 150, "lpips_alex": 1}
TRUNK: dict[str, Any] = {"transforms": {"trunk": "dense", "trunk_width": 336, "trunk_blocks": 8}}
WAYS: dict[str, tuple[dict[str, Any], Weights, int]] = {
    "latent-2, its losses": ({}, BEFORE, 8),
    "latent-2, losses of Stage A": ({}, STAGE_A, 16),
    "with a trunk, losses of Stage A": (TRUNK, STAGE_A, 16),
}


def speed(way: str, args: argparse.Namespace) -> float:
    """Samples a second."""
    config, loss, batch = WAYS[way]
    photos = bank(args.photos, device_of(args.cpu), 1)
    task = LatentTask(made(config, latent_weights(DEFAULT_LATENT), photos), photos, args.metrics)
    phase = Phase(batch, steps=10**9, lr=1e-5, settings={"crop": args.crop, "loss": loss})
    engine = TrainingEngine(task, [phase], args.scratch)
    task.begin(phase)
    for _ in range(3):
        engine.one_step(phase)
    mark, begun = engine.samples, time.time()
    while time.time() - begun < args.seconds:
        float(engine.one_step(phase)["loss"])
    return (engine.samples - mark) / (time.time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("photos", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--cpu", action="store_true", help="even where there is CUDA")
    args = parser.parse_args()
    args.scratch = args.out.parent if args.out else Path()
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "crop": args.crop, "ways": []}
    base = 0.0
    for way in WAYS:
        rate = speed(way, args)
        base = base or rate
        found["ways"].append(
            {"way": way, "samples_per_second": round(rate, 2), "ratio": round(rate / base, 2)}
        )
        print(f"{way}: {rate:.2f}/s, {rate / base:.2f} x", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
