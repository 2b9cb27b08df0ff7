# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Make the working tree small enough to travel to a lent machine, and whole again afterwards.

    python -m training.luggage slim [--keep shared/picogram/models/weights/latent-2.safetensors ...]
    python -m training.luggage restore

``slim`` removes tracked files that training there does not need: weights but for those named, documents, results, tests,
the web page. It refuses where tracked files have uncommitted changes. ``restore`` brings back every tracked file that is
missing.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path, PurePosixPath

LEFT_BEHIND = ("docs", "tests", "web", "examples", "deploy", "benchmarks/results")
LIMIT = 64 * 2**20


def git(*words: str) -> list[str]:
    """Paths that a git command lists. Raises CalledProcessError where it fails."""
    out = subprocess.run(["git", *words, "-z"], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607
    return [path for path in out.split("\0") if path]


def unneeded(paths: list[str], keep: list[str]) -> list[str]:
    """Which of the tracked ``paths`` stay behind."""

    def leaves(path: str) -> bool:
        pure = PurePosixPath(path)
        return pure.suffix == ".safetensors" or any(pure.is_relative_to(folder) for folder in LEFT_BEHIND)

    return [path for path in paths if leaves(path) and path not in keep]


def slim(keep: list[str]) -> float:
    """Remove what is not needed; megabytes that are left."""
    tracked = git("ls-files")
    if unknown := set(keep) - set(tracked):
        raise SystemExit(f"not a tracked file: {min(unknown)}")
    if git("diff", "--name-only", "HEAD"):
        raise SystemExit(
            "tracked files have changes that are not committed, or are missing: commit or restore them first"
        )
    gone = unneeded(tracked, keep)
    for path in gone:
        Path(path).unlink()
    left = sum(Path(path).stat().st_size for path in set(tracked) - set(gone))
    if left > LIMIT:
        raise SystemExit(f"{left / 1e6:.1f} MB are left, more than may travel")
    return left / 1e6


def restore() -> int:
    """Bring the missing back; how many."""
    missing = git("ls-files", "-d")
    if missing:
        subprocess.run(["git", "checkout", "-q", "--", *missing], check=True)  # noqa: S603, S607
    return len(missing)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = made.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("slim")
    verb.add_argument("--keep", nargs="*", default=[], help="weights that travel, as git names them")
    verbs.add_parser("restore")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.verb == "slim":
        print(f"{slim(args.keep):.1f} MB are left")
    else:
        print(f"{restore()} files came back")


if __name__ == "__main__":
    main()
