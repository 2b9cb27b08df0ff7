# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Turn trained heads into the shipped joint space: int8 with a scale per output channel, vectors in fp16.

    python -m training.joint.export RUN --model 1 --out FOLDER [--scores SCORES.json]

``SCORES.json`` is what ``training.joint.validate`` wrote about exactly these weights; export, validate, export again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from picogram.semantics.joint import JointConfig
from training.diffusion.export import pack
from training.shipping import add_target_options, refuse_taken, ship

ORIGIN = "trained for Picogram on nine tenths of Flickr8k; needs the language model and EfficientNet-Lite0"
PROTOCOL = "training/joint/validate.py; the same photos chose the step and the language model's layer"
MEASURED = ("text_offset", "text_factor")
"""Tensors that were not trained."""


def export(
    run: Path, model: int, out: Path, recipe: str, scores: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write weights and manifest to ``out``; the manifest."""
    source = run / "best.safetensors"
    weights = load_file(source)
    with safe_open(source, "pt") as file:
        about: dict[str, str] = file.metadata()
    facts = {
        "origin": ORIGIN,
        "parameters": sum(v.numel() for name, v in weights.items() if name not in MEASURED),
        "config": asdict(config_of(weights, int(about["layers"]))),
        "training": {
            "command": f"python -m training.joint.train --recipe {recipe} --data DATA --out RUN",
            "steps": int(about["step"]),
            "minutes": float(about["minutes"]),
        },
    }
    if scores is not None:
        facts |= {"held_out": scores, "held_out_protocol": PROTOCOL}
    return ship(out, "joint", model, pack(weights), facts)


def config_of(weights: Mapping[str, Tensor], layers: int) -> JointConfig:
    """The sizes that the weights have."""
    image_hidden, image_width = weights["image_enter.weight"].shape
    text_hidden, text_width = weights["text_enter.weight"].shape
    width = len(weights["whole.weight"])
    return JointConfig(layers, image_width, text_width, image_hidden, text_hidden, width)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path)
    made.add_argument("--recipe", default="training/runs/joint-01.json")
    made.add_argument("--scores", type=Path, help="JSON of training.joint.validate")
    add_target_options(made)
    return made


def main() -> None:
    args = parser().parse_args()
    refuse_taken(args, "joint")
    scores = json.loads(args.scores.read_text()) if args.scores else None
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(export(args.run, args.model, args.out, args.recipe, scores), indent=1))


if __name__ == "__main__":
    main()
