# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the command lines of all trainings have in common: a recipe, a folder for the run, how much of it to do."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field
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

    @staticmethod
    def read(path: Path) -> TrainingRecipe:
        """Raises TypeError or ValueError for one that has other fields."""
        return TrainingRecipe(**json.loads(path.read_text()) | {"phases": read_phases(path)})


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


def recipe_of(args: argparse.Namespace) -> tuple[TrainingRecipe, int]:
    """The recipe and the seed; torch is seeded, so that a model made next is the same every time."""
    recipe = TrainingRecipe.read(args.recipe)
    seed = recipe.seed if args.seed is None else args.seed
    torch.manual_seed(seed)
    return recipe, seed


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
