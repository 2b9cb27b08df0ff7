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
import copy
import math
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from picogram.diffusion.model import DiffusionConfig
from picogram.diffusion.rrdb import Trunk
from training import carrier
from training.command import TrainingRecipe
from training.diffusion import train as diffusion
from training.engine import TrainingEngine
from training.phases import scaled

FIRST_BYTES = 42e6
"""Of photographs in the first load."""
MARGIN = 0.97
"""Share of the time left that samples are counted for."""
AT_ONCE = 4
"""Steps between two looks at the clock while measuring: each look waits for the device."""


def pack(args: argparse.Namespace) -> None:
    """Both loads."""
    first, second = loads = [args.out / name for name in ("first", "second")]
    for folder in loads:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
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
    for folder in loads:
        print(folder, f"{carrier.size_of(folder):.1f} MB")


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


def timed(made: TrainingEngine, number: int, steps: int) -> tuple[float, float]:
    """Seconds that so many steps of a phase take, and the last loss. The run's count of phases is not touched."""
    phase, loss, begun = made.phases[number], float("nan"), time.time()
    for _ in range(steps):
        found = made.one_step(phase)["loss"]
    if steps:
        loss = float(found)  # waits for the device
    return time.time() - begun, loss


def affordable(made: TrainingEngine, seconds: float, trial: float) -> int:
    """How many samples of the recipe fit in ``seconds`` from now, of which a ``trial`` takes some and teaches nothing."""
    begun, ends = time.time(), len(made.phases)
    before = copy.deepcopy(made.task.model.state_dict())
    state = copy.deepcopy(made.task.state())
    per_sample, total = 0.0, sum(p.length * p.batch for p in made.phases)
    for number, phase in enumerate(made.phases):
        made.task.begin(phase)
        timed(made, number, 2)  # kernels are chosen and compiled
        steps, spent = 0, 0.0
        while not steps or time.time() - begun < trial * (number + 1) / ends:
            spent, steps = spent + timed(made, number, AT_ONCE)[0], steps + AT_ONCE
        per_sample += spent / (steps * phase.batch) * phase.length * phase.batch / total
    made.task.model.load_state_dict(before)
    made.task.load(state)
    left = seconds - (time.time() - begun)
    return max(1, int(MARGIN * left / per_sample))


def rehearse(load: Path, work: Path, recipe: Path, steps: int) -> None:
    """A few steps of every phase with random judges and a random trunk, compiled and not; prints samples a second."""
    begun = time.time()
    carrier.settle(load, work)
    random_judges(work / "metrics")
    sizes = DiffusionConfig(**TrainingRecipe.read(recipe).model)
    trunk = Trunk(sizes.width, sizes.growth, sizes.blocks)
    save_file(trunk.state_dict(), work / "trunk.safetensors")
    print(f"settled in {time.time() - begun:.1f} s", flush=True)
    for more in ((), ("--compile",)):
        made = engine(work, recipe, work / "rehearsal", *more)
        for number, phase in enumerate(made.phases):
            made.task.begin(phase)
            for part in ("warm", "timed"):
                spent, loss = timed(made, number, steps)
                speed = f"{spent:.1f} s, {steps * phase.batch / spent:.0f}/s"
                print(*more, f"phase {number} {part}: {speed}, loss {loss:.3f}", flush=True)
        if made.task.device.type == "cuda":
            print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
        del made


def train(args: argparse.Namespace) -> None:
    """The run; ends ``--seconds`` after its start, whatever that took."""
    begun = time.time()
    carrier.settle(args.load, args.work)
    run = args.work / "run"
    more = ["--compile"] if args.compile else []
    text = ["--text", str(args.work / "text.safetensors")]
    measured = engine(args.work, args.recipe, run, *text, *more)
    samples = affordable(measured, args.seconds - (time.time() - begun), args.trial)
    phases = scaled(measured.phases, samples)
    made = TrainingEngine(measured.task, phases, run, replace(measured.every, save_seconds=50), light=True)
    print(f"{args.seconds - (time.time() - begun):.0f} s to train on {samples} samples", flush=True)

    with carrier.Courier(made, args.out):
        made.run(begun + args.seconds)
    print(f"ended at step {made.step}, {made.samples} samples, {time.time() - begun:.0f} s", flush=True)


def main() -> None:
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
    verb = verbs.add_parser("train")
    for name in ("load", "work", "--recipe", "--out"):
        verb.add_argument(name, type=Path)
    verb.add_argument("--seconds", type=float, default=575)
    verb.add_argument("--trial", type=float, default=30, help="seconds for measuring the speed")
    verb.add_argument("--compile", action="store_true")
    verb = verbs.add_parser("join")
    verb.add_argument("folder", type=Path)
    verb.add_argument("out", type=Path)
    args = made.parse_args()
    if args.verb == "pack":
        pack(args)
    elif args.verb == "rehearse":
        rehearse(args.load, args.work, args.recipe, args.steps)
    elif args.verb == "train":
        train(args)
    else:
        print(len(carrier.join(args.folder, args.out.stem, args.out)), "tensors")


if __name__ == "__main__":
    main()
