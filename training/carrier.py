# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run carries to a machine that is lent for minutes, and what it brings back.

There: ``settle`` a load (photographs decoded, judges restored), ``spread`` a recipe over the seconds that are left at the
speed just measured, and ``Courier`` writes averaged weights in small parts once a minute, so that a machine that goes
away takes a minute with it. Back here: ``join``.
"""

from __future__ import annotations

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
from training.phases import Phase, scaled
from training.photos import unpack

PART_BYTES = 15 * 2**20
"""Of a file that comes back."""
LARGE = 10_000
"""Arrays of fewer elements travel as they are."""
JUDGES = ("alexnet.ckpt", "vgg16.ckpt")
EVERY = 55.0
"""Seconds between two parcels."""


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


def spread(
    engine: TrainingEngine, phases: Sequence[Phase], seconds: float, trial: float = 30.0
) -> list[Phase]:
    """Train for ``trial`` seconds to see how fast it goes; the phases scaled to what ``seconds`` from now can hold.

    The first quarter of the trial goes to the search for kernels and is not counted. The steps of the trial stay: they
    are the run's first.
    """
    begun, first = time.time(), engine.samples
    engine.phases = [*phases]
    engine.run(begun + trial / 4)
    before, mark = engine.samples, time.time()
    engine.run(begun + trial)
    if engine.samples > before:
        speed = (engine.samples - before) / (time.time() - mark)
    else:  # steps so slow that the first one took all of the trial
        speed = (engine.samples - first) / (time.time() - begun)
    left = seconds - (time.time() - begun)
    found = scaled(phases, engine.samples + max(1, round(speed * left)))
    print(f"{speed:.1f} samples/s, {left:.0f} s left: {[p.length for p in found]} steps", flush=True)
    return found


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


def size_of(folder: Path) -> float:
    """Megabytes of a load."""
    return sum(p.stat().st_size for p in folder.iterdir()) / 1e6
