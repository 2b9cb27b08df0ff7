# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram models``: the latent models inside the package, and the weights that can be fetched."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from picogram.cli.batch import say

app = typer.Typer(help="Embedded models, and weights to fetch.", no_args_is_help=True)

PULLABLE = {"metrics": "LPIPS and DISTS, for the benchmark"}


@app.command("list")
def list_models() -> int:
    """List the latent models in this installation and the weights that can be pulled."""
    from picogram.metrics import weights
    from picogram.models import manifests, weights_folder

    for manifest in manifests().values():
        here = "embedded" if (weights_folder() / str(manifest["file"])).is_file() else "file missing"
        size = f"{manifest['size'] / 1e6:.1f} MB"
        _row(manifest["name"], here, f"{size}, {manifest['licence']}, sha256 {manifest['sha256'][:16]}")
    for name, description in PULLABLE.items():
        _row(name, "pulled" if weights.find() else "not pulled", description)
    return 0


@app.command()
def pull(name: Annotated[str, typer.Argument(help="What to fetch; see `picogram models list`.")]) -> int:
    """Fetch weights, check their hash and print the folder that holds them."""
    from picogram.metrics import weights

    say(str(weights.pull(name, progress=sys.stderr.isatty())))
    return 0


def _row(name: str, here: str, about: str) -> None:
    say(f"{name:<12} {here:<13} {about}")
