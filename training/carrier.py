# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run carries to a machine that is lent for minutes, and what it brings back.

There: ``settle`` a load (photographs decoded, judges restored), make a run ``fitted`` to the seconds that are left at the
speed just measured, and ``Courier`` writes averaged weights in small parts once a minute, so that a machine that goes
away takes a minute with it. Back here: ``join``.
"""

from __future__ import annotations

import argparse
import copy
import io
import pickle
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from picogram.metrics.perceptual import load_arrays
from training.engine import TrainingEngine
from training.phases import scaled
from training.photos import unpack

PART_BYTES = 15 * 2**20
"""Of a file that comes back."""
LARGE = 10_000
"""Arrays of fewer elements travel as they are."""
JUDGES = ("alexnet.ckpt", "vgg16.ckpt")
EVERY = 55.0
"""Seconds between two parcels."""
MARGIN = 0.97
"""Share of the time left that samples are counted for."""
AT_ONCE = 4
"""Steps between two looks at the clock while measuring: each look waits for the device."""


def shrunk(tree: Any) -> Any:
    """Kernels of a nested dictionary as int8 with a scale per output channel (the last axis), the rest as is."""
    if hasattr(tree, "items"):
        return {k: shrunk(v) for k, v in tree.items()}
    array = np.asarray(tree)
    if array.size < LARGE:
        return array
    scale = np.abs(array).max(axis=tuple(range(array.ndim - 1))) / 127
    return {"codes": np.round(array / scale).astype(np.int8), "scale": scale.astype(np.float32)}


def restored(tree: Any) -> Any:
    """What ``shrunk`` was given, but for rounding."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"codes", "scale"}:
        return tree["codes"].astype(np.float32) * tree["scale"]
    return {k: restored(v) for k, v in tree.items()}


def pack_judges(metrics: Path, out: Path, names: Sequence[str] = JUDGES) -> None:
    """Networks of the perceptual metrics as int8, and the weights of DISTS where its network goes, too."""
    for name in names:
        with (metrics / name).open("rb") as file:
            (out / name).write_bytes(pickle.dumps(shrunk(load_arrays(file))))
    if "vgg16.ckpt" in names:
        shutil.copy(metrics / "dists.pt", out)


def split_photos(source: Path, loads: Sequence[Path], sizes: Sequence[float]) -> None:
    """The photographs of a tar, shuffled, into ``photos-N.tar`` of each load, up to so many bytes."""
    with tarfile.open(source) as tar:
        members = [m for m in tar.getmembers() if m.isfile()]
        if not members:
            raise SystemExit(f"{source} has no photographs")
        random.Random(1).shuffle(members)
        for number, (load, size) in enumerate(zip(loads, sizes, strict=True)):
            with tarfile.open(load / f"photos-{number}.tar", "w") as out:
                spent = 0
                while members and spent + members[-1].size + 1024 <= size:
                    member = members.pop()
                    spent += member.size + 1024
                    out.addfile(member, tar.extractfile(member))


def settle(load: Path, work: Path) -> None:
    """Bring a load to where it stays: photographs decoded in ``work/photos``, judges in ``work/metrics``.

    A second load adds its photographs to those of the first.
    """
    metrics = work / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    for path in load.iterdir():
        if path.name in JUDGES:
            tree = restored(load_arrays(io.BytesIO(path.read_bytes())))
            (metrics / path.name).write_bytes(pickle.dumps(tree))
        else:
            shutil.copy(path, metrics if path.name == "dists.pt" else work)
    unpack(work, work / "photos")


def timed(run: TrainingEngine, number: int, steps: int) -> tuple[float, float]:
    """Seconds that so many steps of a phase take, and the last loss. The run's count of phases is not touched."""
    phase, loss, begun = run.phases[number], float("nan"), time.time()
    for _ in range(steps):
        found = run.one_step(phase)["loss"]
    if steps:
        loss = float(found)  # waits for the device
    return time.time() - begun, loss


def affordable(run: TrainingEngine, seconds: float, trial: float) -> int:
    """How many samples of the recipe fit in ``seconds`` from now, of which a ``trial`` takes some and teaches nothing."""
    begun, ends = time.time(), len(run.phases)
    before = copy.deepcopy(run.task.model.state_dict())
    state = copy.deepcopy(run.task.state())
    per_sample, total = 0.0, sum(p.length * p.batch for p in run.phases)
    for number, phase in enumerate(run.phases):
        run.task.begin(phase)
        timed(run, number, 2)  # kernels are chosen and compiled
        steps, spent = 0, 0.0
        while not steps or time.time() - begun < trial * (number + 1) / ends:
            spent, steps = spent + timed(run, number, AT_ONCE)[0], steps + AT_ONCE
        per_sample += spent / (steps * phase.batch) * phase.length * phase.batch / total
    run.task.model.load_state_dict(before)
    run.task.load(state)
    left = seconds - (time.time() - begun)
    return max(1, int(MARGIN * left / per_sample))


def fitted(run: TrainingEngine, seconds: float, trial: float) -> TrainingEngine:
    """The same run, not begun, with its recipe scaled to what ``seconds`` from now can hold.

    How fast each phase goes is measured for ``trial`` seconds altogether, so that the rate of learning has fallen when
    the time is over.
    """
    begun = time.time()
    phases = scaled(run.phases, affordable(run, seconds, trial))
    left = seconds - (time.time() - begun)
    print(f"{left:.0f} s left: {[phase.length for phase in phases]} steps", flush=True)
    return TrainingEngine(run.task, phases, run.out, run.every, light=run.light)


class Courier(threading.Thread):
    """Brings the averaged weights of a run to ``out`` in parts, once a minute and at the end."""

    def __init__(self, engine: TrainingEngine, out: Path) -> None:
        super().__init__(daemon=True)
        self.engine, self.out, self.ended = engine, out, threading.Event()
        out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            self.deliver()

    def deliver(self) -> None:
        for path in self.engine.out.glob("*.safetensors"):
            parts(path, self.out)

    def __enter__(self) -> Courier:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()
        self.deliver()


def parts(path: Path, out: Path) -> None:
    """A file cut into ``STEM.0``, ``STEM.1``, ... of at most 15 MiB."""
    data = path.read_bytes()
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        (out / f"{path.stem}.{number}").write_bytes(data[start : start + PART_BYTES])


def join(folder: Path, name: str, out: Path) -> Mapping[str, torch.Tensor]:
    """Parts to the file that they were; its tensors."""
    numbered = sorted(folder.glob(f"{name}.[0-9]*"), key=lambda p: int(p.suffix[1:]))
    if [int(p.suffix[1:]) for p in numbered] != list(range(len(numbered))) or not numbered:
        raise SystemExit(f"{folder} does not hold all parts of {name}: {[p.name for p in numbered]}")
    out.write_bytes(b"".join(p.read_bytes() for p in numbered))
    return load_file(out)


def empty_loads(out: Path) -> tuple[Path, Path]:
    """The folders ``first`` and ``second`` in ``out``, without what they held."""
    loads = out / "first", out / "second"
    for load in loads:
        shutil.rmtree(load, ignore_errors=True)
        load.mkdir(parents=True)
    return loads


def print_sizes(loads: Sequence[Path]) -> None:
    """Megabytes of each load."""
    for load in loads:
        print(load, f"{sum(p.stat().st_size for p in load.iterdir()) / 1e6:.1f} MB")


def train_options(verb: argparse.ArgumentParser) -> None:
    """What every ``train`` takes there."""
    for name in ("load", "work"):
        verb.add_argument(name, type=Path)
    for name in ("recipe", "out"):
        verb.add_argument(f"--{name}", type=Path, required=True)
    verb.add_argument("--seconds", type=float, default=575, help="of this call")
    verb.add_argument("--trial", type=float, default=30, help="seconds for measuring the speed")
    verb.add_argument("--compile", action="store_true")


def join_options(verb: argparse.ArgumentParser) -> None:
    """What every ``join`` takes here."""
    for name in ("folder", "out"):
        verb.add_argument(name, type=Path)
