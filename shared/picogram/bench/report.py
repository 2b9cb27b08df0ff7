# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a run of the benchmark leaves: ``results.json``, ``results.md``, and a table for the terminal.

The JSON holds everything the other outputs are made of. Its shape is ``BenchReport``; ``schema`` grows when that
changes. What a run has not measured on request (``semantic``, ``agreement``) is left out of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from picogram.bench.semantic import MEANING
from picogram.errors import UsageError

SCHEMA = 1
_LEGEND = (
    "Every byte of a file is counted. over: pictures whose smallest file exceeds the budget; "
    "small: pictures coded at half size or less and enlarged."
)
_MEANS = ("bytes", "bpp", "lpips", "dists", "ms_ssim", "psnr", "encode_seconds", "decode_seconds", *MEANING)


@dataclass(frozen=True)
class BenchRow:
    """One picture through one codec at one target; ``scale`` divides the coded sides, nan is unmeasurable."""

    codec: str
    image: str
    target_bpp: float
    budget: int
    bytes: int
    bpp: float
    over_budget: bool
    quality: int
    scale: int
    lpips: float
    dists: float
    ms_ssim: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    semantic: float = math.nan
    agreement: float = math.nan


@dataclass(frozen=True)
class BenchMean:
    """Means over ``images`` pictures; ``over_budget`` and ``downscaled`` count those among them."""

    codec: str
    target_bpp: float
    images: int
    over_budget: int
    downscaled: int
    bytes: float
    bpp: float
    lpips: float
    dists: float
    ms_ssim: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    semantic: float = math.nan
    agreement: float = math.nan


@dataclass
class BenchReport:
    """A whole run: ``codecs`` by name with version and settings, ``pictures`` with size, SHA-256, perhaps a caption.

    ``space``: name of the joint space that meanings were compared in; "": they were not.
    """

    targets: list[float]
    codecs: dict[str, dict[str, Any]]
    pictures: dict[str, dict[str, Any]]
    rows: list[BenchRow] = field(default_factory=list)
    schema: int = SCHEMA
    space: str = ""

    def means(self) -> list[BenchMean]:
        """One per codec and target, in the order of ``codecs`` and ``targets``."""
        found = []
        for codec in self.codecs:
            for target in self.targets:
                rows = [row for row in self.rows if row.codec == codec and row.target_bpp == target]
                if rows:
                    found.append(_mean(codec, target, rows))
        return found


def _mean(codec: str, target: float, rows: list[BenchRow]) -> BenchMean:
    averages = {name: _average(getattr(row, name) for row in rows) for name in _MEANS}
    over = sum(row.over_budget for row in rows)
    downscaled = sum(row.scale > 1 for row in rows)
    return BenchMean(codec, target, len(rows), over, downscaled, **averages)


def _average(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _plain(record: BenchRow | BenchMean) -> dict[str, Any]:
    """A record for JSON: floats rounded to six digits after the point, nan as null."""
    plain = asdict(record)
    plain = {key: value for key, value in plain.items() if key not in MEANING or not math.isnan(value)}
    for key, value in plain.items():
        if isinstance(value, float):
            plain[key] = None if math.isnan(value) else round(value, 6)
    return plain


def save(report: BenchReport, path: Path) -> None:
    """Write the JSON, means included for readers that do not want to compute them."""
    document = {
        "schema": report.schema,
        **({"space": report.space} if report.space else {}),
        "targets": report.targets,
        "codecs": report.codecs,
        "pictures": report.pictures,
        "means": [_plain(mean) for mean in report.means()],
        "rows": [_plain(row) for row in report.rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> BenchReport:
    """Read what ``save`` wrote; UsageError if it is something else."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise UsageError(f"{path} has schema {document['schema']}, this is a reader of {SCHEMA}")
        rows = [_row(entry) for entry in document["rows"]]
        space = document.get("space", "")
        return BenchReport(document["targets"], document["codecs"], document["pictures"], rows, space=space)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a benchmark report: {error}") from error


def _row(entry: dict[str, Any]) -> BenchRow:
    names = [item.name for item in fields(BenchRow) if item.name in entry or item.name not in MEANING]
    values: dict[str, Any] = {name: math.nan if entry[name] is None else entry[name] for name in names}
    return BenchRow(**values)


_FIGURES = ("bpp ≤", "codec", "bytes", "bpp", "LPIPS↓", "DISTS↓", "MS-SSIM↑", "PSNR↑")
_SECONDS = ("enc s", "dec s")


def _columns(report: BenchReport) -> tuple[str, ...]:
    return (*_FIGURES, *(f"{name}↑" for name in _meanings(report)), *_SECONDS, "notes")


def _meanings(report: BenchReport) -> list[str]:
    """Those of ``MEANING`` that somebody asked for and that a row has."""
    return [n for n in MEANING if report.space and any(not math.isnan(getattr(r, n)) for r in report.rows)]


def _legend(report: BenchReport) -> str:
    said = "; ".join(f"{name}: {MEANING[name]}" for name in _meanings(report))
    return f"{_LEGEND} {said}; both in {report.space}." if said else _LEGEND


def _cells(report: BenchReport) -> Iterator[tuple[str, ...]]:
    means = report.means()
    for target in report.targets:
        for mean in (mean for mean in means if mean.target_bpp == target):
            notes = [f"{mean.over_budget} over"] if mean.over_budget else []
            notes += [f"{mean.downscaled} small"] if mean.downscaled else []
            notes += [f"of {mean.images}"] if mean.images < len(report.pictures) else []
            meanings = tuple(f"{getattr(mean, name):.3f}" for name in _meanings(report))
            figures = f"{mean.bytes:.0f}", f"{mean.bpp:.4f}", f"{mean.lpips:.3f}", f"{mean.dists:.3f}"
            more = f"{mean.ms_ssim:.3f}", f"{mean.psnr:.2f}"
            seconds = f"{mean.encode_seconds:.2f}", f"{mean.decode_seconds:.2f}"
            yield f"{target:g}", mean.codec, *figures, *more, *meanings, *seconds, ", ".join(notes)


def table(report: BenchReport) -> Table:
    """Means for the terminal."""
    made = Table(
        title=f"Means over {len(report.pictures)} images",
        caption=_legend(report),
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    columns = _columns(report)
    spared = ("bytes", "bpp", *_SECONDS) if _meanings(report) else ("bytes",)  # fits 80 columns
    shown = [index for index, column in enumerate(columns) if column not in spared]
    for column in (columns[index] for index in shown):
        made.add_column(
            column, justify="left" if column in ("codec", "notes") else "right", no_wrap=column != "notes"
        )
    previous = ""
    for cells in _cells(report):
        if previous and cells[0] != previous:
            made.add_section()
        previous = cells[0]
        made.add_row(*(cells[index] for index in shown))
    return made


def markdown(report: BenchReport) -> str:
    """Means, then what made them."""
    columns = _columns(report)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cells) + " |" for cells in _cells(report)]
    lines += ["", f"Means over {len(report.pictures)} images. {_legend(report)}", ""]
    for name, about in report.codecs.items():
        settings = ", ".join(f"{key} {value}" for key, value in about["settings"].items())
        lines.append(f"- {name}: {about['version']}" + (f" ({settings})" if settings else ""))
    return "\n".join(lines) + "\n"
