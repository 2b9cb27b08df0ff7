# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The latent model on a machine that is lent for minutes: two loads, one run.

    python -m training.latent.lent pack --photos CARRY/photos.tar --metrics METRICS --out .carry  # .carry/first, second
    python -m training.latent.lent train .carry/first  WORK --recipe R --start S --out $OUT --seconds 575 --of 790
    python -m training.latent.lent train .carry/second WORK --recipe R --start S --out $OUT --seconds 200
    python -m training.latent.lent join OUT average.safetensors

``train`` runs there, ``pack`` and ``join`` here. The first call measures the speed of each phase for half a minute
altogether and fits the recipe to ``--of`` seconds; the second goes on where the first stopped, with the photographs of
both loads. Each ends ``--seconds`` after its start.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from training import carrier
from training.devices import tuned_for_speed
from training.latent import train as latent
from training.phases import Phase

LOAD_BYTES = 57e6
"""Of photographs in a load; judges and the working tree take the rest of what may travel."""


def pack(args: argparse.Namespace) -> None:
    """Both loads."""
    if not args.photos.is_file():
        raise SystemExit(f"{args.photos} is not there")
    loads = carrier.empty_loads(args.out)
    carrier.split_photos(args.photos, loads, (args.bytes, args.bytes))
    carrier.pack_judges(args.metrics, loads[0], ("alexnet.ckpt",))
    carrier.print_sizes(loads)


def options_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options of ``training.latent.train`` for what ``--work`` holds."""
    named = {
        "recipe": args.recipe,
        "start": args.start,
        "photos": args.work / "photos",
        "metrics": args.work / "metrics",
        "out": args.work / "run",
    }
    words = [word for name, path in named.items() for word in (f"--{name}", str(path))]
    words += [f"--{name}" for name in ("compile", "cpu") if getattr(args, name)]
    return latent.parser().parse_args([*words, "--save-every", "45"])


def train(args: argparse.Namespace) -> None:
    """One call; what ``--work`` holds of an earlier one is continued."""
    end = time.time() + args.seconds
    carrier.settle(args.load, args.work)
    tuned_for_speed()
    run = latent.engine(options_of(args))
    plan = run.out / "phases.json"
    if plan.exists():
        run.phases = [Phase.of(phase) for phase in json.loads(plan.read_text())]
    else:
        left = end + (args.of or args.seconds) - args.seconds - time.time()
        run = carrier.fitted(run, left, args.trial)
        plan.write_text(json.dumps([asdict(phase) for phase in run.phases]))
    with carrier.Courier(run, args.out):
        run.run(end)
    print(f"ended at step {run.step}, {run.samples} samples, phase {run.phase}", flush=True)


def parser() -> argparse.ArgumentParser:
    """A verb for each part of the errand."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = made.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    for name in ("photos", "metrics", "out"):
        verb.add_argument(f"--{name}", type=Path, required=True)
    verb.add_argument("--bytes", type=float, default=LOAD_BYTES, help="of photographs in each load")
    verb = verbs.add_parser("train")
    carrier.train_options(verb)
    verb.add_argument("--start", type=Path, required=True)
    verb.add_argument("--of", type=float, help="seconds of all calls together")
    verb.add_argument("--cpu", action="store_true", help="even where there is CUDA")
    carrier.join_options(verbs.add_parser("join"))
    return made


def main() -> None:
    args = parser().parse_args()
    if args.verb == "join":
        print(len(carrier.join(args.folder, args.out.stem, args.out)), "tensors")
    else:
        {"pack": pack, "train": train}[args.verb](args)


if __name__ == "__main__":
    main()
