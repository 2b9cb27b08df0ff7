# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Carry training to a machine that is lent for minutes: pack small, resume, bring fp16 weights back.

    python -m training.lent_gpu pack  --out CARRY --metrics WEIGHTS SOURCES...    # under 40 MB: JPEG crops + metric nets
    python -m training.lent_gpu train --carry CARRY --recipe R --minutes 9 --out OUT [--resume PARTS]
    python -m training.lent_gpu join  --parts OUT --checkpoint last.pt            # fp16 parts -> a checkpoint

``train`` unpacks, runs the ordinary trainer for the minutes given, and leaves ``average.fp16`` and ``model.fp16``, both
cut into parts under 16 MB, with ``state.json``. A resumed call starts the optimiser afresh with a warm-up.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from picogram.metrics.perceptual import load_arrays
from training.pack import pack

PART_BYTES = 15 * 2**20
LARGE = 10_000
"""Arrays of fewer elements travel as they are."""
SPLITS = ("train", "val")
COUNTERS = ("step", "phase_index", "phase_step", "phase_seconds", "total_seconds", "samples")


def pack_small(
    sources: list[str], metrics: Path, out: Path, size: int, megabytes: float, quality: int
) -> None:
    """Crops as one tar of JPEGs within ``megabytes``, and the metric networks' convolutions as int8."""
    out.mkdir(parents=True, exist_ok=True)
    pack(sources, out / "raw", size, seed=1, limit=None)
    budget = {"train": megabytes * 2**20 * 0.97, "val": megabytes * 2**20 * 0.03}
    with tarfile.open(out / "crops.tar", "w") as tar:
        for split in SPLITS:
            crops = np.memmap(out / "raw" / f"{split}.u8", np.uint8, "r").reshape(-1, size, size, 3)
            spent = 0.0
            for index, crop in enumerate(crops):
                buffer = io.BytesIO()
                Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
                info = tarfile.TarInfo(f"{split}/{index:06d}.jpg")
                info.size = buffer.tell()
                spent += info.size + 512 + 256
                if spent > budget[split]:
                    break
                buffer.seek(0)
                tar.addfile(info, buffer)
    for path in (out / "raw").iterdir():
        path.unlink()
    (out / "raw").rmdir()
    (out / "meta.json").write_text(json.dumps({"size": size, "sources": [Path(s).name for s in sources]}))
    for name in ("alexnet.ckpt", "vgg16.ckpt"):
        with (metrics / name).open("rb") as file:
            arrays = shrunk(load_arrays(file))
        (out / name).write_bytes(pickle.dumps(arrays))
    (out / "dists.pt").write_bytes((metrics / "dists.pt").read_bytes())
    print(f"{sum(p.stat().st_size for p in out.iterdir()) / 2**20:.1f} MB in {out}")


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
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"codes", "scale"}:
        return tree["codes"].astype(np.float32) * tree["scale"]
    return {k: restored(v) for k, v in tree.items()}


def unpack(carry: Path, work: Path) -> None:
    """Make the folders that the trainer reads."""
    data, metrics = work / "crops", work / "metrics"
    data.mkdir(parents=True, exist_ok=True)
    metrics.mkdir(exist_ok=True)
    arrays: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    with tarfile.open(carry / "crops.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            arrays[member.name.split("/")[0]].append(np.asarray(Image.open(io.BytesIO(file.read()))))
    for split, crops in arrays.items():
        np.stack(crops).tofile(data / f"{split}.u8")
    (data / "meta.json").write_bytes((carry / "meta.json").read_bytes())
    for name in ("alexnet.ckpt", "vgg16.ckpt"):
        tree = restored(load_arrays(io.BytesIO((carry / name).read_bytes())))
        (metrics / name).write_bytes(pickle.dumps(tree))
    (metrics / "dists.pt").write_bytes((carry / "dists.pt").read_bytes())


def write_parts(state: dict[str, object], out: Path) -> None:
    """fp16 weights of a checkpoint in files under 16 MB, and its counters."""
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("average", "model"):
        weights = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state[kind].items()}  # type: ignore[attr-defined]
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        data = buffer.getvalue()
        for number, start in enumerate(range(0, len(data), PART_BYTES)):
            (out / f"{kind}.{number:02d}.fp16").write_bytes(data[start : start + PART_BYTES])
    (out / "state.json").write_text(json.dumps({k: state[k] for k in COUNTERS}))


def read_parts(parts: Path) -> dict[str, object]:
    """The checkpoint of ``write_parts``, without an optimiser."""
    state: dict[str, object] = json.loads((parts / "state.json").read_text())
    for kind in ("average", "model"):
        data = b"".join(p.read_bytes() for p in sorted(parts.glob(f"{kind}.*.fp16")))
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        state[kind] = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    return state


def train(args: argparse.Namespace) -> None:
    """Unpack, continue where the parts left off, train, write new parts."""
    work = args.work
    unpack(args.carry, work)
    run = work / "run"
    run.mkdir(parents=True, exist_ok=True)
    if args.resume:
        torch.save(read_parts(args.resume), run / "last.pt")
    command = [
        sys.executable,
        "-m",
        "training.train_latent",
        "--recipe",
        str(args.recipe),
        "--data",
        str(work / "crops"),
    ]
    command += ["--metrics", str(work / "metrics"), "--out", str(run), "--stop-after", str(args.minutes * 60)]
    subprocess.run(command, check=True)  # noqa: S603 - our own module
    write_parts(torch.load(run / "last.pt", map_location="cpu", weights_only=False), args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    verb.add_argument("sources", nargs="+")
    verb.add_argument("--metrics", type=Path, required=True)
    verb.add_argument("--out", type=Path, required=True)
    verb.add_argument("--size", type=int, default=256)
    verb.add_argument("--megabytes", type=float, default=20.0)
    verb.add_argument("--quality", type=int, default=88)
    verb = verbs.add_parser("train")
    verb.add_argument("--carry", type=Path, required=True)
    verb.add_argument("--recipe", type=Path, required=True)
    verb.add_argument("--minutes", type=float, default=9.0)
    verb.add_argument("--out", type=Path, required=True)
    verb.add_argument("--resume", type=Path)
    verb.add_argument("--work", type=Path, default=Path("gpu-work"))
    verb = verbs.add_parser("join")
    verb.add_argument("--parts", type=Path, required=True)
    verb.add_argument("--checkpoint", type=Path, required=True)
    args = parser.parse_args()
    if args.verb == "pack":
        pack_small(args.sources, args.metrics, args.out, args.size, args.megabytes, args.quality)
    elif args.verb == "train":
        train(args)
    else:
        torch.save(read_parts(args.parts), args.checkpoint)


if __name__ == "__main__":
    main()
