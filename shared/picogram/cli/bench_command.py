# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram bench FOLDER``: Picogram against other codecs, or with ``--ablate`` against itself without its words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from picogram.cli.batch import missing_extra
from picogram.errors import UsageError


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("bench-results"),
    codecs: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated names; also picogram-base, -stc, -misc, -sedic, -taco. Default: all installed.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images.", show_default=False)
    ] = None,
    bpps: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated rates. Default: 0.0075,0.015,0.03,0.05,0.1, with --ablate 0.03.",
            show_default=False,
        ),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(help="results.json whose rows of other codecs are taken over.", show_default=False),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Measure what words are worth, at equal size, instead.")
    ] = False,
    profiles: Annotated[
        str | None,
        typer.Option(help="With --ablate: comma-separated. Default: stc,misc,sedic.", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="With --ablate: drawings of each file. Default: 3.", show_default=False)
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="CSV with image_name and overall_description: with --ablate, in place of the captioner's; "
            "with --semantic, to compare with what is decoded.",
            show_default=False,
        ),
    ] = None,
    semantic: Annotated[
        bool,
        typer.Option("--semantic", help="Also compare meanings (needs the models text and features)."),
    ] = False,
) -> int:
    """Compare Picogram with other codecs at equal size, or with itself without its words."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if ablate and (codecs or reuse or semantic):
        raise UsageError("--codecs, --reuse and --semantic do not go with --ablate")
    if not ablate and (profiles is not None or seeds is not None):
        raise UsageError("--profiles and --seeds go with --ablate")
    if captions is not None and not (ablate or semantic):
        raise UsageError("--captions goes with --ablate or --semantic")
    rates = _rates(bpps)
    try:
        if ablate:
            from picogram.bench.comparison import ablation
        else:
            from picogram.bench.comparison import bench as compare
    except ModuleNotFoundError as error:
        raise missing_extra(f"the benchmark (no module {error.name})", "bench") from error
    if ablate:
        ablation(folder, out, limit, _names(profiles), rates, seeds, captions)
    else:
        compare(folder, out, _names(codecs), limit, rates, reuse, semantic, captions)
    return 0


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


def _rates(text: str | None) -> list[float] | None:
    try:
        return [float(rate) for rate in text.split(",")] if text else None
    except ValueError as error:
        raise UsageError(f"--bpps takes numbers with commas between them, not {text}") from error
