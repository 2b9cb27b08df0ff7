# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion model on a machine lent for minutes: two loads that fit its size limit, a rehearsal, then the run.

    python -m training.diffusion.lent pack --carry CARRY --metrics METRICS --features NET --latent LATENT --trunk TRUNK \\
        --text TEXT --out .carry                        # here: .carry/first and .carry/second, 62 MB each
    python -m training.diffusion.lent rehearse .carry/first /tmp/work --recipe R # there: random judges, speed of a step
    python -m training.diffusion.lent train .carry/second /tmp/work --recipe R --seconds 575 --out $OUT
    python -m training.diffusion.lent join OUT average.safetensors               # here: parts to weights

The first load holds half of the photographs and what a rehearsal needs; it stays on the machine for the second one.
Weights come back in parts below 16 MB, once a minute. How many samples fit is measured first, with steps that are thrown
away, so that the rate of learning has fallen when the time is over.
"""

from __future__ import annotations

import argparse
import math
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from picogram.diffusion.diffusion_net import DiffusionConfig
from picogram.diffusion.rrdb import RRDBTrunk
from training import carrier
from training.command import TrainingRecipe
from training.diffusion import train as diffusion
from training.engine import TrainingEngine

FIRST_BYTES = 42e6
"""Of photographs in the first load."""


def pack(args: argparse.Namespace) -> None:
    """Both loads."""
    first, second = loads = carrier.empty_loads(args.out)
    carrier.split_photos(args.carry / "photos.tar", loads, (FIRST_BYTES, math.inf))
    for name in ("captions.json", "words.safetensors"):
        shutil.copy(args.carry / name, first)
    shutil.copy(args.latent, first / "latent.safetensors")
    tensors = {k: v.half() if v.dim() > 1 else v for k, v in load_file(args.features).items()}
    save_file(tensors, first / "features.safetensors")
    for wheel in args.wheels:
        shutil.copy(wheel, first)
    shutil.copy(args.trunk, second / "trunk.safetensors")
    shutil.copy(args.text, second / "text.safetensors")
    carrier.pack_judges(args.metrics, second)
    (second / "dists.pt").rename(first / "dists.pt")  # a rehearsal needs its weights
    carrier.print_sizes(loads)


def random_judges(folder: Path) -> None:
    """Checkpoints of the metrics' shapes, for a rehearsal."""
    rng = np.random.default_rng(1)

    def conv(inside: int, out: int, side: int) -> dict[str, Any]:
        kernel = rng.normal(0, (2 / (inside * side**2)) ** 0.5, (side, side, inside, out))
        return {"kernel": kernel.astype(np.float32), "bias": np.zeros(out, np.float32)}

    def net(widths: list[int], sides: list[int]) -> dict[str, Any]:
        pairs = zip([3, *widths], widths, sides, strict=False)
        return {f"Conv_{i}": conv(a, b, side) for i, (a, b, side) in enumerate(pairs)}

    def heads(widths: list[int]) -> dict[str, Any]:
        ones = ({"Conv_0": {"kernel": np.full((1, 1, w, 1), 1 / w, np.float32)}} for w in widths)
        return {f"NetLinLayer_{i}": head for i, head in enumerate(ones)}

    alex = [64, 192, 384, 256, 256]
    vgg = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    trees = {
        "alexnet.ckpt": {"AlexNet_0": net(alex, [11, 5, 3, 3, 3]), **heads(alex)},
        "vgg16.ckpt": {"VGG16_0": net(vgg, [3] * 13), **heads([64, 128, 256, 512, 512])},
    }
    for name, tree in trees.items():
        (folder / name).write_bytes(pickle.dumps(tree))


def engine(work: Path, recipe: Path, out: Path, *more: str) -> TrainingEngine:
    """A light run on what ``carrier.settle`` left."""
    out.mkdir(parents=True, exist_ok=True)
    named = {
        "recipe": recipe,
        "photos": work / "photos",
        "latent": work / "latent.safetensors",
        "trunk": work / "trunk.safetensors",
        "metrics": work / "metrics",
        "features": work / "features.safetensors",
        "out": out,
    }
    words = [word for name, path in named.items() for word in (f"--{name}", str(path))]
    return diffusion.engine(diffusion.parser().parse_args([*words, "--light", *more]))


def rehearse(load: Path, work: Path, recipe: Path, steps: int) -> None:
    """A few steps of every phase with random judges and a random trunk, compiled and not; prints samples a second."""
    begun = time.time()
    carrier.settle(load, work)
    random_judges(work / "metrics")
    sizes = DiffusionConfig(**TrainingRecipe.read(recipe).model)
    trunk = RRDBTrunk(sizes.width, sizes.growth, sizes.blocks)
    save_file(trunk.state_dict(), work / "trunk.safetensors")
    print(f"settled in {time.time() - begun:.1f} s", flush=True)
    for more in ((), ("--compile",)):
        made = engine(work, recipe, work / "rehearsal", *more)
        for number, phase in enumerate(made.phases):
            made.task.begin(phase)
            for part in ("warm", "timed"):
                spent, loss = carrier.timed(made, number, steps)
                speed = f"{spent:.1f} s, {steps * phase.batch / spent:.0f}/s"
                print(*more, f"phase {number} {part}: {speed}, loss {loss:.3f}", flush=True)
        if made.task.device.type == "cuda":
            print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
        del made


def train(args: argparse.Namespace) -> None:
    """The run; ends ``--seconds`` after its start, whatever that took."""
    begun = time.time()
    carrier.settle(args.load, args.work)
    more = ["--compile"] if args.compile else []
    more += ["--text", str(args.work / "text.safetensors"), "--save-every", "50"]
    measured = engine(args.work, args.recipe, args.work / "run", *more)
    made = carrier.fitted(measured, args.seconds - (time.time() - begun), args.trial)
    with carrier.Courier(made, args.out):
        made.run(begun + args.seconds)
    print(f"ended at step {made.step}, {made.samples} samples, {time.time() - begun:.0f} s", flush=True)


def parser() -> argparse.ArgumentParser:
    """A verb for each part of the errand."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = made.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    for name in ("carry", "metrics", "features", "latent", "trunk", "text", "out"):
        verb.add_argument(f"--{name}", type=Path, required=True)
    verb.add_argument("--wheels", type=Path, nargs="*", default=[])
    verb = verbs.add_parser("rehearse")
    verb.add_argument("load", type=Path)
    verb.add_argument("work", type=Path)
    verb.add_argument("--recipe", type=Path, required=True)
    verb.add_argument("--steps", type=int, default=15)
    carrier.train_options(verbs.add_parser("train"))
    carrier.join_options(verbs.add_parser("join"))
    return made


def main() -> None:
    args = parser().parse_args()
    if args.verb == "rehearse":
        rehearse(args.load, args.work, args.recipe, args.steps)
    elif args.verb == "join":
        print(len(carrier.join(args.folder, args.out.stem, args.out)), "tensors")
    else:
        {"pack": pack, "train": train}[args.verb](args)


if __name__ == "__main__":
    main()
