# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a run of the benchmark leaves: ``results.json``, ``results.md``, and a table for the terminal.

The JSON holds everything the other outputs are made of. Its shape is ``Report``; ``schema`` grows when that
changes.
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

from picogram.errors import UsageError

SCHEMA = 1
_LEGEND = (
    "Every byte of a file is counted. over: pictures whose smallest file exceeds the budget; "
    "small: pictures coded at half size or less and enlarged."
)
_MEANS = ("bytes", "bpp", "lpips", "dists", "ms_ssim", "psnr", "encode_seconds", "decode_seconds")


@dataclass(frozen=True)
class Row:
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


@dataclass(frozen=True)
class Mean:
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


@dataclass
class Report:
    """A whole run: ``codecs`` by name with version and settings, ``pictures`` with size and SHA-256."""

    targets: list[float]
    codecs: dict[str, dict[str, Any]]
    pictures: dict[str, dict[str, Any]]
    rows: list[Row] = field(default_factory=list)
    schema: int = SCHEMA

    def means(self) -> list[Mean]:
        """One per codec and target, in the order of ``codecs`` and ``targets``."""
        found = []
        for codec in self.codecs:
            for target in self.targets:
                rows = [row for row in self.rows if row.codec == codec and row.target_bpp == target]
                if rows:
                    found.append(_mean(codec, target, rows))
        return found


def _mean(codec: str, target: float, rows: list[Row]) -> Mean:
    averages = {name: _average(getattr(row, name) for row in rows) for name in _MEANS}
    over = sum(row.over_budget for row in rows)
    downscaled = sum(row.scale > 1 for row in rows)
    return Mean(codec, target, len(rows), over, downscaled, **averages)


def _average(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _plain(record: Row | Mean) -> dict[str, Any]:
    """A record for JSON: floats rounded to six digits after the point, nan as null."""
    plain = asdict(record)
    for key, value in plain.items():
        if isinstance(value, float):
            plain[key] = None if math.isnan(value) else round(value, 6)
    return plain


def save(report: Report, path: Path) -> None:
    """Write the JSON, means included for readers that do not want to compute them."""
    document = {
        "schema": report.schema,
        "targets": report.targets,
        "codecs": report.codecs,
        "pictures": report.pictures,
        "means": [_plain(mean) for mean in report.means()],
        "rows": [_plain(row) for row in report.rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> Report:
    """Read what ``save`` wrote; UsageError if it is something else."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise UsageError(f"{path} has schema {document['schema']}, this is a reader of {SCHEMA}")
        rows = [_row(entry) for entry in document["rows"]]
        return Report(document["targets"], document["codecs"], document["pictures"], rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a benchmark report: {error}") from error


def _row(entry: dict[str, Any]) -> Row:
    names = [item.name for item in fields(Row)]
    values: dict[str, Any] = {name: math.nan if entry[name] is None else entry[name] for name in names}
    return Row(**values)


_COLUMNS = (
    "bpp ≤",
    "codec",
    "bytes",
    "bpp",
    "LPIPS↓",
    "DISTS↓",
    "MS-SSIM↑",
    "PSNR↑",
    "enc s",
    "dec s",
    "notes",
)


def _cells(report: Report) -> Iterator[tuple[str, ...]]:
    means = report.means()
    for target in report.targets:
        for mean in (mean for mean in means if mean.target_bpp == target):
            notes = [f"{mean.over_budget} over"] if mean.over_budget else []
            notes += [f"{mean.downscaled} small"] if mean.downscaled else []
            notes += [f"of {mean.images}"] if mean.images < len(report.pictures) else []
            figures = f"{mean.bytes:.0f}", f"{mean.bpp:.4f}", f"{mean.lpips:.3f}", f"{mean.dists:.3f}"
            more = f"{mean.ms_ssim:.3f}", f"{mean.psnr:.2f}", f"{mean.encode_seconds:.2f}"
            yield f"{target:g}", mean.codec, *figures, *more, f"{mean.decode_seconds:.2f}", ", ".join(notes)


def table(report: Report) -> Table:
    """Means for the terminal."""
    made = Table(
        title=f"Means over {len(report.pictures)} images", caption=_LEGEND, box=SIMPLE, padding=(0, 1, 0, 0)
    )
    shown = [index for index, column in enumerate(_COLUMNS) if column != "bytes"]  # fits 80 columns
    for column in (_COLUMNS[index] for index in shown):
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


def markdown(report: Report) -> str:
    """Means, then what made them."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(cells) + " |" for cells in _cells(report)]
    lines += ["", f"Means over {len(report.pictures)} images. {_LEGEND}", ""]
    for name, about in report.codecs.items():
        settings = ", ".join(f"{key} {value}" for key, value in about["settings"].items())
        lines.append(f"- {name}: {about['version']}" + (f" ({settings})" if settings else ""))
    return "\n".join(lines) + "\n"
