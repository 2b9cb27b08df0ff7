# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion curves and side-by-sides of a report, as PNG files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from picogram.bench.measuring import LOWER_IS_BETTER, METRICS
from picogram.bench.report import BenchMean, BenchReport

_TITLES = {"lpips": "LPIPS (alex)", "dists": "DISTS", "ms_ssim": "MS-SSIM", "psnr": "PSNR (dB)"}
_COLOURS = {
    "picogram": "#d62728",
    "picogram-base": "#ff9896",
    "picogram-stc": "#8c564b",
    "picogram-misc": "#e377c2",
    "picogram-sedic": "#bcbd22",
    "picogram-taco": "#17becf",
    "vvc": "#1f77b4",
    "avif": "#2ca02c",
    "jxl": "#9467bd",
    "webp": "#ff7f0e",
    "jpeg": "#7f7f7f",
}
_LABEL_HEIGHT = 22
_GAP = 4


def curves(report: BenchReport, path: Path) -> None:
    """A 2x2 grid, one metric each, over the rate that was spent; hollow marks had files over budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    means = report.means()
    for axes, metric in zip(figure.subplots(2, 2).flat, METRICS, strict=True):
        for codec in report.codecs:
            _curve(axes, [mean for mean in means if mean.codec == codec], metric)
        axes.set_xscale("log")
        axes.set_xticks(report.targets, [f"{target:g}" for target in report.targets])
        axes.minorticks_off()
        axes.set_xlabel("bits per pixel, whole file")
        arrow = "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
        axes.set_title(f"{_TITLES[metric]}, {arrow}")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"Means over {len(report.pictures)} images; hollow: some files exceed the budget")
    figure.savefig(path, dpi=110)


def _curve(axes: object, means: list[BenchMean], metric: str) -> None:
    if not means:
        return
    means = sorted(means, key=lambda mean: mean.bpp)
    codec, colour = means[0].codec, _COLOURS.get(means[0].codec, "black")
    xs, ys = [mean.bpp for mean in means], [getattr(mean, metric) for mean in means]
    axes.plot(xs, ys, color=colour, label=codec, linewidth=2 if codec == "picogram" else 1.3)  # type: ignore[attr-defined]
    faces = ["white" if mean.over_budget else colour for mean in means]
    axes.scatter(xs, ys, facecolors=faces, edgecolors=colour, s=30, zorder=3)  # type: ignore[attr-defined]


def side_by_side(panels: list[tuple[str, Image.Image]], path: Path, columns: int = 3) -> None:
    """Pictures of one size in a grid with their labels above, unscaled so that every pixel can be judged."""
    width, height = panels[0][1].size
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    cell_width, cell_height = width + _GAP, height + _LABEL_HEIGHT + _GAP
    sheet = Image.new("RGB", (columns * cell_width - _GAP, rows * cell_height - _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (label, picture) in enumerate(panels):
        x, y = index % columns * cell_width, index // columns * cell_height
        draw.text((x + 2, y + 2), label, fill="black", font=font)
        sheet.paste(picture, (x, y + _LABEL_HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
