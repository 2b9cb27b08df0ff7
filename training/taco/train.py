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
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from picogram.models.store import features_file
from picogram.semantics.features import FeatureNet
from picogram.semantics.joint import load_heads
from training import command
from training.latent.task import bank, device_of, made
from training.latent.train import engine_of, parser
from training.taco.data import Captioned
from training.taco.task import TacoTask, with_adapter


def options() -> argparse.ArgumentParser:
    """Those of a latent model's run, and where the captions are."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--captioned", type=Path, required=True, help="folder made by training.taco.pack")
    found.add_argument("--states", type=Path, required=True, help="folder made by training.joint.data")
    return found


def features(device: torch.device) -> FeatureNet:
    """The frozen picture network of the joint space."""
    net: FeatureNet = FeatureNet(load_file(features_file())).to(device)
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def task_of(args: argparse.Namespace) -> TacoTask:
    """The model of a recipe on both kinds of photographs."""
    torch.manual_seed(args.seed)
    device = device_of(args.cpu)
    photos, heads = bank(args.photos, device, args.seed), load_heads()
    config = json.loads(args.recipe.read_text()).get("model", {})
    checkpoint = args.out / "last.pt"
    start = checkpoint if checkpoint.exists() else args.start
    model = made(config, start, photos)
    if config.get("adapter", True):
        model = with_adapter(model, heads, start)
    captioned = Captioned(args.captioned, args.states, heads, device, photos.rng)
    return TacoTask(model, photos, captioned, features(device), args.metrics, args.compile)


def main() -> None:
    args = options().parse_args()
    command.run(engine_of(args, task_of(args)), args)


if __name__ == "__main__":
    main()
