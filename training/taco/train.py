# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train a latent model with the text adapter and the joint loss; resumable at any step.

    python -m training.taco.train --recipe training/runs/taco-01.json --start LATENT/average.safetensors \\
        --photos PHOTOS --captioned CAPTIONED --states STATES --metrics METRICS --out RUN

Steps take turns at random: windows of photographs without captions (``training.photos``), and whole captioned
photographs (``training.taco.pack``). A model without an adapter gets one that does nothing yet; a recipe whose ``model``
says ``"adapter": false`` is a control's. A phase that freezes "analysis", "synthesis", "prior" and "log_gain" trains the
adapter alone. The device is CUDA where there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from picogram.models.store import features_file
from picogram.semantics.features import FeatureNet
from picogram.semantics.joint import load_heads
from training import command
from training.command import TrainingRecipe, engine_of, is_resumed, recipe_of
from training.devices import device_of, placed
from training.engine import TrainingEngine
from training.latent import train as latent
from training.latent.task import empty, made
from training.photos import bank
from training.taco.data import Captioned
from training.taco.task import TacoTask, with_adapter


def parser(description: str = __doc__.splitlines()[0]) -> argparse.ArgumentParser:
    """Those of a latent model's run, and where the captions are."""
    found = latent.parser(description)
    found.add_argument("--captioned", type=Path, required=True, help="folder made by training.taco.pack")
    found.add_argument("--states", type=Path, required=True, help="folder made by training.joint.data")
    return found


def features(device: torch.device) -> FeatureNet:
    """The frozen picture network of the joint space."""
    return placed(FeatureNet(load_file(features_file())), device)


def task_of(args: argparse.Namespace, recipe: TrainingRecipe, seed: int) -> TacoTask:
    """The model of a recipe on both kinds of photographs."""
    device = device_of(args.cpu)
    photos, heads = bank(args.photos, device, seed), load_heads()
    config = {name: value for name, value in recipe.model.items() if name != "adapter"}
    start = None if is_resumed(args) else args.start
    model = empty(config) if is_resumed(args) else made(config, start, photos)
    if recipe.model.get("adapter", True):
        model = with_adapter(model, heads, start)
    captioned = Captioned(args.captioned, args.states, heads, device, photos.rng)
    return TacoTask(model, photos, captioned, features(device), args.metrics, args.compile)


def engine(args: argparse.Namespace) -> TrainingEngine:
    """A run as the options say."""
    recipe, seed = recipe_of(args)
    return engine_of(args, recipe, task_of(args, recipe, seed), seed)


def main() -> None:
    args = parser().parse_args()
    command.run(engine(args), args)


if __name__ == "__main__":
    main()
