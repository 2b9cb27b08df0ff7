# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Turn a training checkpoint into the shipped diffusion model: int8 with a scale per output channel, vectors in fp16.

python -m training.diffusion.export RUN/last.pt --model 1 --out shared/picogram/models/weights
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.shipping import int8_channels, ship


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with ``NAME.scale``, the rest as fp16: what ``unpack_floats`` undoes."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        tensors |= {name: value.detach().cpu().half()} if value.dim() < 2 else int8_channels(name, value)
    return tensors


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Averaged weights of a checkpoint or a file of weights, and what is known of the training."""
    if path.suffix == ".safetensors":
        return load_file(path), {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    about = {
        "hours": round(state["total_seconds"] / 3600, 2),
        "samples": state["samples"],
        "steps": state["step"],
    }
    return state["average"], about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--model", type=int, required=True, help="id of the new model")
    parser.add_argument("--recipe", default="training/runs/diffusion-02.json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights, about = read_weights(args.weights)
    command = f"python -m training.diffusion.train --recipe {args.recipe} --data PAIRS --text LM "
    command += "--metrics METRICS --features FEATURES --out RUN"
    manifest = ship(
        args.out,
        "diffusion",
        args.model,
        pack(weights),
        {
            "parameters": sum(value.numel() for value in weights.values()),
            "training": {"command": command, **about},
        },
    )
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
