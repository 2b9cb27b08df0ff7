# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train a latent model on photographs; resumable at any step.

    python -m training.latent.train --recipe training/runs/latent-03.json --photos PHOTOS --metrics METRICS --out RUN
        [--start WEIGHTS] [--samples N] [--seconds S]

``--photos``: made by ``training.photos``. ``--start``: a shipped model, a checkpoint or averaged weights. ``--samples``:
the recipe's phases, scaled to so many samples altogether. The device is CUDA where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from training.engine import Every, TrainingEngine
from training.latent.task import LatentTask, bank, device_of, made
from training.phases import Phase, read_phases, scaled


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every run that trains a latent model."""
    found = argparse.ArgumentParser(description=description)
    for name in ("recipe", "photos", "metrics", "out"):
        found.add_argument(f"--{name}", type=Path, required=True)
    found.add_argument("--start", type=Path, help="weights to start from")
    found.add_argument("--samples", type=int, help="scale the recipe to so many")
    found.add_argument(
        "--seconds", type=float, default=math.inf, help="stop after so many; run again to go on"
    )
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--log-every", type=int, default=50)
    found.add_argument("--save-every", type=float, default=300, help="seconds")
    found.add_argument("--cpu", action="store_true", help="even where there is CUDA")
    found.add_argument("--compile", action="store_true", help="compile the synthesis' blocks")
    found.add_argument("--light", action="store_true", help="keep averaged weights only")
    return found


def engine_of(
    args: argparse.Namespace, task: LatentTask, planned: Sequence[Phase] | None = None
) -> TrainingEngine:
    """A run as the options say; ``planned``: instead of the recipe's phases."""
    phases = list(planned or read_phases(args.recipe))
    if args.samples:
        phases = scaled(phases, args.samples)
    every = Every(log=args.log_every, save_seconds=args.save_every)
    return TrainingEngine(task, phases, args.out, every, light=args.light, seed=args.seed)


def task_of(args: argparse.Namespace) -> LatentTask:
    """The model of a recipe on the photographs."""
    torch.manual_seed(args.seed)
    photos = bank(args.photos, device_of(args.cpu), args.seed)
    recipe = json.loads(args.recipe.read_text())
    if unknown := sorted(set(recipe) - {"model", "phases"}):
        raise SystemExit(f"{args.recipe}: a recipe has no {unknown[0]!r}, only model and phases")
    config = recipe.get("model", {})
    resumed = (args.out / "last.pt").exists()
    model = made(config, args.out / "last.pt" if resumed else args.start, photos)
    return LatentTask(model, photos, args.metrics, args.compile)


def main() -> None:
    args = parser(__doc__.splitlines()[0]).parse_args()
    engine_of(args, task_of(args)).run(time.time() + args.seconds)


if __name__ == "__main__":
    main()
