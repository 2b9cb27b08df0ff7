# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The latent model on a machine that is lent for minutes: two loads, one run.

    python -m training.latent.lent pack --photos CARRY/photos.tar --metrics METRICS --out .carry  # .carry/first, second
    python -m training.latent.lent train .carry/first  WORK --recipe R --start S --out $OUT --seconds 575 --of 790
    python -m training.latent.lent train .carry/second WORK --recipe R --start S --out $OUT --seconds 200
    python -m training.latent.lent join OUT average.safetensors

``train`` runs there, ``pack`` and ``join`` here. The first call measures the speed for half a minute and spreads the
recipe over ``--of`` seconds; the second goes on where the first stopped, with the photographs of both loads. Each ends
``--seconds`` after its start.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch

from training import carrier
from training.latent.train import engine_of, parser, task_of
from training.phases import Phase, read_phases

LOAD_BYTES = 57e6
"""Of photographs in a load; judges and the working tree take the rest of what may travel."""


def pack(args: argparse.Namespace) -> None:
    """Both loads."""
    if not args.photos.is_file():
        raise SystemExit(f"{args.photos} is not there")
    loads = [args.out / name for name in ("first", "second")]
    for load in loads:
        shutil.rmtree(load, ignore_errors=True)
        load.mkdir(parents=True)
    carrier.split_photos(args.photos, loads, (args.bytes, args.bytes))
    carrier.pack_judges(args.metrics, loads[0], ("alexnet.ckpt",))
    for load in loads:
        print(load, f"{carrier.size_of(load):.1f} MB")


def train(args: argparse.Namespace) -> None:
    """One call; what ``--work`` holds of an earlier one is continued."""
    end = time.time() + args.seconds
    carrier.settle(args.load, args.work)
    run, plan = args.work / "run", args.work / "run" / "phases.json"
    words = ["--recipe", str(args.recipe), "--photos", str(args.work / "photos"), "--out", str(run)]
    words += ["--metrics", str(args.work / "metrics"), "--start", str(args.start), "--save-every", "45"]
    options = parser("").parse_args(
        [*words, *(["--compile"] if args.compile else []), *(["--cpu"] if args.cpu else [])]
    )
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    planned = [Phase.of(p) for p in json.loads(plan.read_text())] if plan.exists() else None
    engine = engine_of(options, task_of(options), planned)
    with carrier.Courier(engine, args.out):
        if planned is None:
            left = end + (args.of or args.seconds) - args.seconds - time.time()
            engine.phases = carrier.spread(engine, read_phases(args.recipe), left, args.trial)
            plan.write_text(json.dumps([asdict(p) for p in engine.phases]))
        engine.run(end if args.seconds < math.inf else math.inf)
    print(f"ended at step {engine.step}, {engine.samples} samples, phase {engine.phase}", flush=True)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = made.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    for name in ("photos", "metrics", "out"):
        verb.add_argument(f"--{name}", type=Path, required=True)
    verb.add_argument("--bytes", type=float, default=LOAD_BYTES, help="of photographs in each load")
    verb = verbs.add_parser("train")
    verb.add_argument("load", type=Path)
    verb.add_argument("work", type=Path)
    for name in ("recipe", "start", "out"):
        verb.add_argument(f"--{name}", type=Path, required=True)
    verb.add_argument("--seconds", type=float, default=575, help="of this call")
    verb.add_argument("--of", type=float, help="seconds of all calls together")
    verb.add_argument("--trial", type=float, default=30, help="seconds for measuring the speed")
    verb.add_argument("--compile", action="store_true")
    verb.add_argument("--cpu", action="store_true", help="even where there is CUDA")
    verb = verbs.add_parser("join")
    verb.add_argument("folder", type=Path)
    verb.add_argument("out", type=Path)
    args = made.parse_args()
    if args.verb == "pack":
        pack(args)
    elif args.verb == "train":
        train(args)
    else:
        print(len(carrier.join(args.folder, args.out.stem, args.out)), "tensors")


if __name__ == "__main__":
    main()
