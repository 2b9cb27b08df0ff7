# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the command lines of all trainings have in common: a recipe, a folder for the run, how much of it to do."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from training.engine import Every, TrainingEngine, TrainingTask
from training.phases import Phase, read_phases, scaled


@dataclass(frozen=True)
class TrainingRecipe:
    """A file of ``training/runs``.

    ``judge`` and ``patience`` are those of ``Every``; ``model`` describes the network, ``task`` all that is the same in
    every phase.
    """

    phases: list[Phase]
    seed: int = 1
    judge: int = 0
    patience: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TrainingRecipe:
        """Raises SystemExit for one with other fields, TypeError or ValueError for phases that are none."""
        raw = json.loads(path.read_text())
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(raw) - set(known)):
            raise SystemExit(f"{path}: a recipe has no {unknown[0]!r}, only {', '.join(known)}")
        return cls(**raw | {"phases": read_phases(path)})


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every run."""
    found = argparse.ArgumentParser(description=description)
    for name in ("recipe", "out"):
        found.add_argument(f"--{name}", type=Path, required=True)
    found.add_argument("--samples", type=int, help="scale the recipe to so many")
    found.add_argument(
        "--seconds", type=float, default=math.inf, help="stop after so many; run again to go on"
    )
    found.add_argument("--seed", type=int, help="instead of the recipe's")
    found.add_argument("--log-every", type=int, default=20, help="steps")
    found.add_argument("--save-every", type=float, default=300, help="seconds")
    found.add_argument("--light", action="store_true", help="keep averaged weights only")
    return found


def add_photo_options(found: argparse.ArgumentParser, compiled: str) -> None:
    """Those of runs on photographs, which are worth a GPU; ``compiled``: what ``--compile`` compiles."""
    found.add_argument("--photos", type=Path, required=True, help="folder made by training.photos")
    found.add_argument("--metrics", type=Path, required=True, help="folder of the LPIPS and DISTS weights")
    found.add_argument("--start", type=Path, help="weights to start from")
    found.add_argument("--compile", action="store_true", help=f"compile {compiled}")
    found.add_argument("--cpu", action="store_true", help="even where there is CUDA")


def recipe_of(args: argparse.Namespace) -> tuple[TrainingRecipe, int]:
    """The recipe and the seed; torch is seeded, so that a model made next is the same every time."""
    recipe = TrainingRecipe.read(args.recipe)
    seed = recipe.seed if args.seed is None else args.seed
    torch.manual_seed(seed)
    return recipe, seed


def is_resumed(args: argparse.Namespace) -> bool:
    """Whether ``engine_of`` will go on from a checkpoint, which holds all weights: none need to be read before."""
    return bool((args.out / "last.pt").exists())


def engine_of(
    args: argparse.Namespace, recipe: TrainingRecipe, task: TrainingTask, seed: int
) -> TrainingEngine:
    """A run as the options say."""
    phases = scaled(recipe.phases, args.samples) if args.samples else recipe.phases
    every = Every(args.log_every, args.save_every, recipe.judge, recipe.patience)
    return TrainingEngine(task, phases, args.out, every, light=args.light, seed=seed)


def run(engine: TrainingEngine, args: argparse.Namespace) -> None:
    """Train for as long as the options allow."""
    engine.run(time.time() + args.seconds)
