# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the embedded diffusion model on what a frozen latent model makes of photographs; resumable at any step.

    python -m training.diffusion.train --recipe training/runs/diffusion-03.json --photos PHOTOS --latent LATENT \\
        --trunk TRUNK --metrics METRICS --features FEATURES --out RUN [--samples N] [--seconds S] [--start WEIGHTS]

``--photos``: made by ``training.photos``; ``--trunk``: by ``training.diffusion.pretrained``. ``--samples``: the recipe's
phases, scaled to so many samples altogether. The device is CUDA where there is one. A recipe's ``model`` is the network's
``DiffusionConfig``, its ``task`` says ``fresh``; see ``training.diffusion.task``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file

from picogram.diffusion.conditioning import WordTable
from picogram.diffusion.diffusion_net import DiffusionConfig, DiffusionNet
from picogram.latent.codec import unpack_floats
from picogram.semantics.features import FeatureNet
from training import command
from training.command import TrainingRecipe, engine_of, recipe_of
from training.devices import device_of, tuned_for_speed
from training.diffusion.task import DiffusionTask, compile_blocks, start
from training.engine import TrainingEngine
from training.frozen import FrozenCodec
from training.photos import bank


def parser() -> argparse.ArgumentParser:
    """The options of a run."""
    made = command.parser(__doc__.splitlines()[0])
    command.add_photo_options(made, "the dense blocks")
    for name in ("latent", "trunk"):
        made.add_argument(f"--{name}", type=Path, required=True)
    made.add_argument("--features", type=Path, help="EfficientNet-Lite0, for terms on its features")
    made.add_argument("--text", type=Path, help="weights of a text encoder to start from")
    return made


def task_of(args: argparse.Namespace, recipe: TrainingRecipe, seed: int) -> DiffusionTask:
    """The network of a recipe on the photographs."""
    tuned_for_speed()
    codec, net = FrozenCodec(args.latent), DiffusionNet(DiffusionConfig(**recipe.model))
    if args.start:
        net.load_state_dict(unpack_floats(load_file(args.start)))  # of a run, or shipped as int8
    else:
        start(net, args.trunk, codec, args.text)
    if args.compile:
        compile_blocks(net)
    features = FeatureNet(load_file(args.features)) if args.features else None
    photos = bank(args.photos, device_of(args.cpu), seed)
    table = WordTable(load_file(args.photos / "words.safetensors"))
    return DiffusionTask(net, codec, photos, table, args.metrics, features, **recipe.task)


def engine(args: argparse.Namespace) -> TrainingEngine:
    """A run as the options say."""
    recipe, seed = recipe_of(args)
    return engine_of(args, recipe, task_of(args, recipe, seed), seed)


def main() -> None:
    args = parser().parse_args()
    command.run(engine(args), args)


if __name__ == "__main__":
    main()
