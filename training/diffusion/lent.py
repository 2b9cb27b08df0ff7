# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion model on a machine lent for minutes: two loads that fit its size limit, a rehearsal, then the run.

    python -m training.diffusion.lent pack --carry CARRY --metrics METRICS --features NET --latent LATENT --trunk TRUNK \\
        --text TEXT --out .carry                        # here: .carry/first and .carry/second, 62 MB each
    python -m training.diffusion.lent rehearse .carry/first /tmp/work            # there: random judges, speed of a step
    python -m training.diffusion.lent train .carry/second /tmp/work --recipe R --seconds 575 --out $OUT
    python -m training.diffusion.lent join OUT average.safetensors               # here: parts to weights

The first load holds half of the photographs and what a rehearsal needs; it stays on the machine for the second one.
Weights come back in parts below 16 MB, once a minute.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import shutil
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from picogram.diffusion.rrdb import Trunk
from picogram.metrics.perceptual import load_arrays
from training.diffusion.train import Trainer, parser
from training.lent_gpu import PART_BYTES, restored, shrunk
from training.photos import unpack

FIRST_BYTES = 42e6
"""Of photographs in the first load."""
_CHECKPOINTS = ("alexnet.ckpt", "vgg16.ckpt")


def pack(args: argparse.Namespace) -> None:
    """Both loads."""
    first, second = (args.out / name for name in ("first", "second"))
    for folder in (first, second):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _split(args.carry / "photos.tar", first / "photos-0.tar", second / "photos-1.tar")
    for name in ("captions.json", "words.safetensors"):
        shutil.copy(args.carry / name, first)
    shutil.copy(args.latent, first / "latent.safetensors")
    shutil.copy(args.metrics / "dists.pt", first)
    tensors = {k: v.half() if v.dim() > 1 else v for k, v in load_file(args.features).items()}
    save_file(tensors, first / "features.safetensors")
    for wheel in args.wheels:
        shutil.copy(wheel, first)
    shutil.copy(args.trunk, second / "trunk.safetensors")
    shutil.copy(args.text, second / "text.safetensors")
    for name in _CHECKPOINTS:
        with (args.metrics / name).open("rb") as file:
            (second / name).write_bytes(pickle.dumps(shrunk(load_arrays(file))))
    for folder in (first, second):
        print(folder, f"{sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB")


def _split(source: Path, first: Path, second: Path) -> None:
    with tarfile.open(source) as tar, tarfile.open(first, "w") as a, tarfile.open(second, "w") as b:
        spent = 0
        members = tar.getmembers()
        random.Random(1).shuffle(members)
        for member in members:
            spent += member.size + 1024
            (a if spent < FIRST_BYTES else b).addfile(member, tar.extractfile(member))


def _random_judges(folder: Path) -> None:
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


def settle(load: Path, work: Path) -> None:
    """Bring a load to where it stays, photographs decoded, judges restored."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "metrics").mkdir(exist_ok=True)
    for path in load.iterdir():
        if path.name in _CHECKPOINTS:
            tree = restored(load_arrays(io.BytesIO(path.read_bytes())))
            (work / "metrics" / path.name).write_bytes(pickle.dumps(tree))
        else:
            shutil.copy(path, work / "metrics" if path.name == "dists.pt" else work)
    unpack(work, work / "photos")


def trainer(work: Path, recipe: Path, out: Path, *more: str) -> Trainer:
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
    return Trainer(parser().parse_args([*words, "--light", *more]))


def rehearse(load: Path, work: Path, recipe: Path, steps: int) -> None:
    """A few steps of every phase with random judges and a random trunk, compiled and not; prints samples a second."""
    begun = time.time()
    settle(load, work)
    _random_judges(work / "metrics")
    save_file(Trunk(64, 32, 8).state_dict(), work / "trunk.safetensors")
    print(f"settled in {time.time() - begun:.1f} s", flush=True)
    for more in ((), ("--compile",)):
        made = trainer(work, recipe, work / "rehearsal", "--steps", str(10**6), *more)
        for number, phase in enumerate(made.recipe.phases):
            made.distances = None
            for part in ("warm", "timed"):
                begun = time.time()
                for _ in range(steps):
                    loss = made.train_step(phase)["loss"]
                    made.step += 1
                value, spent = float(loss), time.time() - begun
                speed = steps * made.recipe.batch / spent
                print(
                    *more,
                    f"phase {number} {part}: {spent:.1f} s, {speed:.0f}/s, loss {value:.3f}",
                    flush=True,
                )
        if made.device.type == "cuda":
            print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
        del made


def train(args: argparse.Namespace) -> None:
    """The run; ends ``--seconds`` after its start, whatever that took."""
    begun = time.time()
    settle(args.load, args.work)
    run, ended = args.work / "run", threading.Event()
    more = ["--compile"] if args.compile else []
    text = ["--text", str(args.work / "text.safetensors")]
    made = trainer(args.work, args.recipe, run, "--seconds", "1", "--save-every", "50", *text, *more)
    made.args.seconds = args.seconds - (time.time() - begun)
    print(f"{made.args.seconds:.0f} s to train", flush=True)

    def bring() -> None:
        while not ended.wait(55):
            parts(run, args.out)

    threading.Thread(target=bring, daemon=True).start()
    made.run()
    ended.set()
    parts(run, args.out)
    print(f"ended at step {made.step}, {made.samples} samples, {time.time() - begun:.0f} s", flush=True)


def parts(run: Path, out: Path) -> None:
    """The averaged weights of a run in parts."""
    for path in run.glob("*.safetensors"):
        data = path.read_bytes()
        for number, start in enumerate(range(0, len(data), PART_BYTES)):
            (out / f"{path.stem}.{number}").write_bytes(data[start : start + PART_BYTES])


def join(folder: Path, name: str, out: Path) -> None:
    """Parts to weights again."""
    out.write_bytes(b"".join(p.read_bytes() for p in sorted(folder.glob(f"{name}.[0-9]"))))
    print(f"{len(load_file(out))} tensors in {out}")


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
        join(args.folder, args.out.stem, args.out)


if __name__ == "__main__":
    main()
