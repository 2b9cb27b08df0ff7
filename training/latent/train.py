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

from training import command
from training.command import TrainingRecipe, engine_of, is_resumed, recipe_of
from training.devices import device_of
from training.engine import TrainingEngine
from training.latent.task import LatentTask, empty, made
from training.photos import bank


def parser(description: str = __doc__.splitlines()[0]) -> argparse.ArgumentParser:
    """The options of every run that trains a latent model."""
    found = command.parser(description)
    command.add_photo_options(found, "the synthesis' blocks")
    found.set_defaults(log_every=50)
    return found


def task_of(args: argparse.Namespace, recipe: TrainingRecipe, seed: int) -> LatentTask:
    """The model of a recipe on the photographs."""
    if recipe.task:
        raise SystemExit(f"{args.recipe}: a latent model has settings of phases, none in task")
    photos = bank(args.photos, device_of(args.cpu), seed)
    model = empty(recipe.model) if is_resumed(args) else made(recipe.model, args.start, photos)
    return LatentTask(model, photos, args.metrics, args.compile)


def engine(args: argparse.Namespace) -> TrainingEngine:
    """A run as the options say."""
    recipe, seed = recipe_of(args)
    return engine_of(args, recipe, task_of(args, recipe, seed), seed)


def main() -> None:
    args = parser().parse_args()
    command.run(engine(args), args)


if __name__ == "__main__":
    main()
