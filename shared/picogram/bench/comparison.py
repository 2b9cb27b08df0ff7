# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram bench``: every codec over a folder of pictures at several rates; or, with ``--ablate``, what words do.

folder ── read ──> for each picture, codec, target: search, measure ──> OUT/results.{json,md}, curves.png,
                                                                        side-by-side/*.png
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from picogram.bench.codecs import BenchCodec, available, make
from picogram.bench.measuring import Backbones, Reference, bits_per_pixel, budget_bytes
from picogram.bench.plots import curves, side_by_side
from picogram.bench.report import BenchReport, BenchRow, load, markdown, save, table
from picogram.bench.search import Search, restore, shrink
from picogram.bench.semantic import Semantic
from picogram.bench.word_variants import read_captions
from picogram.errors import BudgetTooSmall, UsageError
from picogram.metrics import weights

DEFAULT_BPPS = (0.0075, 0.015, 0.03, 0.05, 0.1)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm"}
_SIDE_BY_SIDES = 6
_SIDE_BY_SIDE_BPP = 0.03


def bench(
    folder: Path,
    out: Path,
    codecs: list[str] | None = None,
    limit: int | None = None,
    bpps: list[float] | None = None,
    reuse: Path | None = None,
    semantic: bool = False,
    captions: Path | None = None,
) -> None:
    """Measure ``codecs`` (all available ones by default) over the first ``limit`` pictures of ``folder``.

    ``semantic`` compares meanings, too, and with ``captions``, a table as ``read_captions`` takes it, those of captions
    and decoded pictures. Raises ModelMissing or ModelDamaged, before any work is done, without the models for that.

    ``reuse`` is the ``results.json`` of an earlier run: rows of the classical codecs are taken from it where
    picture, settings, version and target agree, so that new weights cost only Picogram's own time.
    """
    console = Console()
    makers = [make(name) for name in codecs or available()]
    targets = sorted(bpps or DEFAULT_BPPS)
    paths = pictures_in(folder, limit)
    said = read_captions(captions, [path.name for path in paths]) if captions else {}
    space = Semantic() if semantic else None
    about = {codec.name: _about(codec) for codec in makers}
    report = BenchReport(targets, about, {}, space=space.name if space else "")
    run = _ComparisonRun(report, makers, load(reuse) if reuse else None, console, space, said)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(paths) * len(makers) * len(targets))
        for path in paths:
            for codec in run.picture(path):
                progress.update(task, description=f"{path.stem} {codec}", advance=len(targets))
            save(report, out / "results.json")
    (out / "results.md").write_text(markdown(report))
    console.print(table(report))
    curves(report, out / "curves.png")
    _side_by_sides(run, paths[:_SIDE_BY_SIDES], out / "side-by-side")
    console.print(f"results are in {out}")


def ablation(
    folder: Path,
    out: Path,
    limit: int | None = None,
    profiles: list[str] | None = None,
    bpps: list[float] | None = None,
    seeds: int | None = None,
    captions: Path | None = None,
) -> None:
    """What words are worth over the first ``limit`` pictures of ``folder``, with the defaults of ``ablate``.

    Raises UsageError and UnsupportedProfile before any work is done.
    """
    from picogram.bench import ablate
    from picogram.bench.result_tables import sentence
    from picogram.bench.verdicts import verdicts

    wish = ablate.Wish(
        profiles or ablate.PROFILES,
        sorted(bpps or ablate.BPPS),
        ablate.SEEDS if seeds is None else seeds,
        captions,
    )
    result = ablate.ablate(pictures_in(folder, limit), _read, out, wish)
    for verdict in verdicts(result.rows):
        print(f"{verdict.profile} at {verdict.bpp:g} bpp: {sentence(verdict)}")
    print(f"results are in {out}")


def pictures_in(folder: Path, limit: int | None) -> list[Path]:
    """The first ``limit`` files of pictures by name. Raises UsageError if there are none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)[:limit]
    if not paths:
        raise UsageError(f"{folder} holds no pictures")
    return paths


def _about(codec: BenchCodec) -> dict[str, Any]:
    return {"version": codec.version, "settings": codec.settings}


def _read(path: Path) -> Image.Image:
    from picogram.images import read_image

    image: Image.Image = read_image(path)
    return image


class _ComparisonRun:
    """What a run carries from picture to picture."""

    def __init__(
        self,
        report: BenchReport,
        codecs: list[BenchCodec],
        earlier: BenchReport | None,
        console: Console,
        space: Semantic | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> None:
        self.report = report
        self._space = space
        self._captions = captions or {}
        self.codecs = codecs
        self._earlier = earlier
        self._console = console
        self._backbones: Backbones | None = None

    def picture(self, path: Path) -> Iterable[str]:
        """Add the rows of one picture; yields a codec's name when it is done."""
        image = _read(path)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        about = {"width": image.width, "height": image.height, "sha256": digest}
        caption = self._captions.get(path.name)
        self.report.pictures[path.name] = about | ({} if caption is None else {"caption": caption})
        reference: Reference | None = None
        for codec in self.codecs:
            known = self._known(codec, path.name)
            missing = [target for target in self.report.targets if target not in known]
            if missing:
                self._backbones = self._backbones or Backbones(weights.require())
                reference = reference or self._reference(image, caption, self._backbones)
                known |= self._measure(Search(codec, reference), path.name, missing)
            self.report.rows += [known[target] for target in self.report.targets if target in known]
            yield codec.name

    def _reference(self, image: Image.Image, caption: str | None, backbones: Backbones) -> Reference:
        return Reference(image, backbones, self._space.against(image, caption) if self._space else None)

    def _known(self, codec: BenchCodec, name: str) -> dict[float, BenchRow]:
        """Rows of an earlier run that still hold."""
        earlier = self._earlier
        if earlier is None or codec.budgeted or earlier.codecs.get(codec.name) != _about(codec):
            return {}
        if self.report.space and self.report.space != earlier.space:
            return {}
        if earlier.pictures.get(name) != self.report.pictures[name]:
            return {}
        rows = (row for row in earlier.rows if row.codec == codec.name and row.image == name)
        return {row.target_bpp: row for row in rows}

    def _measure(self, search: Search, name: str, targets: list[float]) -> dict[float, BenchRow]:
        rows = {}
        for target in targets:
            size = search.reference.image.size
            budget = budget_bytes(target, size)
            try:
                choice = search.choose(budget)
            except BudgetTooSmall as error:
                self._console.print(f"{name}: {search.codec.name} at {target:g} bpp left out: {error}")
                continue
            encoded = choice.encoded
            rows[target] = BenchRow(
                codec=search.codec.name,
                image=name,
                target_bpp=target,
                budget=budget,
                bytes=len(encoded.data),
                bpp=bits_per_pixel(len(encoded.data), size),
                over_budget=choice.over_budget,
                quality=encoded.quality,
                scale=encoded.scale,
                encode_seconds=encoded.seconds,
                decode_seconds=choice.decode_seconds,
                **search.reference.metrics(choice.decoded),
            )
        return rows


def _side_by_sides(run: _ComparisonRun, paths: list[Path], folder: Path) -> None:
    """Original and codecs at the target nearest to 0.03 bpp; the files are made again from their rows."""
    target = min(run.report.targets, key=lambda bpp: abs(bpp - _SIDE_BY_SIDE_BPP))
    for path in paths:
        image = _read(path)
        panels = [(f"original {image.width}x{image.height}", image)]
        for codec in run.codecs:
            rows = (row for row in run.report.rows if row.codec == codec.name and row.image == path.name)
            for row in (row for row in rows if row.target_bpp == target):
                over = f" > {row.budget}" if row.over_budget else ""
                data = codec.encode(shrink(image, row.scale), row.quality)
                label = f"{codec.name}  {len(data)} bytes{over}  LPIPS {row.lpips:.3f}  DISTS {row.dists:.3f}"
                panels.append((label, restore(codec.decode(data), row.scale, image.size)))
        side_by_side(panels, folder / f"{path.stem}-{target:g}bpp.png")
