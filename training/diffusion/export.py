# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Averaged weights of a run as the shipped diffusion model: int8 with a scale per output channel, vectors in fp16.

    python -m training.diffusion.export RUN/average.safetensors --model 2 --samples 88384 --hours 0.16 \\
        --out shared/picogram/models/weights
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from training.engine import progress
from training.shipping import add_target_options, int8_channels, refuse_taken, ship

COMMAND = (
    "python -m training.diffusion.train --recipe training/runs/diffusion-03.json --photos PHOTOS --latent LATENT "
    "--trunk TRUNK --text TEXT --metrics METRICS --features FEATURES --out RUN"
)
ORIGIN = (
    "The trunk was tuned from Real-ESRGAN's RealESRGAN_x4plus (Copyright (c) 2021, Xintao Wang; BSD-3-Clause: "
    "real-esrgan.LICENSE beside this file)"
)


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with ``NAME.scale``, the rest as fp16: what ``unpack_floats`` undoes."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        tensors |= {name: value.detach().cpu().half()} if value.dim() < 2 else int8_channels(name, value)
    return tensors


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("weights", type=Path)
    made.add_argument("--samples", type=int, help="that the run saw; default: what the weights say")
    made.add_argument("--hours", type=float, help="of the run; default: what the weights say")
    made.add_argument("--device", default="one NVIDIA H200")
    add_target_options(made)
    return made


def main() -> None:
    args = parser().parse_args()
    refuse_taken(args, "diffusion")
    weights = load_file(args.weights)
    said = progress(args.weights)
    training = {
        "command": COMMAND,
        "device": args.device,
        "hours": round(said["minutes"] / 60, 2) if args.hours is None else args.hours,
        "samples": said["samples"] if args.samples is None else args.samples,
    }
    about = {
        "licence": "Apache-2.0 AND BSD-3-Clause",
        "origin": ORIGIN,
        "parameters": sum(value.numel() for value in weights.values()),
        "training": training,
    }
    print(json.dumps(ship(args.out, "diffusion", args.model, pack(weights), about), indent=1))


if __name__ == "__main__":
    main()
