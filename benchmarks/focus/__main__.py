# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Does a focus better what it names, and what does it cost the rest? At equal file bytes, on photos with drawn masks.

    python -m benchmarks.focus --photos photos.tar --bpp 0.03 --out focus.json

Photos, phrases and masks are those of ``benchmarks.focus.photo_masks``. Needs the models ``metrics``, ``text`` and
``features``. Markdown goes to the standard output; the JSON is written anew after every photo.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.focus.focus_scores import FocusResult, measure
from benchmarks.focus.photo_masks import load_regions
from picogram.bench.ablate import model_digests, program_versions
from picogram.bench.result_tables import write
from picogram.errors import PicogramError, UsageError
from picogram.latent.focus import INSIDE, OUTSIDE, SOFTENING
from picogram.metrics import weights
from picogram.metrics.perceptual import load_lpips
from picogram.semantics.words import default_words


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.focus", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--photos", type=Path, required=True, help="tar or folder with the photographs")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.03])
    parser.add_argument("--limit", type=int, help="only the first N photographs")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    result = FocusResult()
    try:
        if not all(0 < bpp <= 24 for bpp in given.bpp):
            raise UsageError("rates are bits per pixel, above 0 and up to 24")
        photos = load_regions(given.photos)[: given.limit]
        lpips = load_lpips(weights.require())
        settings = {"bpps": given.bpp, "outside": OUTSIDE, "inside": INSIDE, "softening": SOFTENING}
        about = {"settings": settings, "versions": program_versions(), "models": model_digests()}
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=len(photos))

            def done() -> None:
                write(given.out, about | result.document())
                progress.advance(task)

            measure(photos, given.bpp, default_words(), lpips, result, done)
    except PicogramError as error:
        sys.exit(str(error))
    write(given.out, about | result.document())
    print(result.markdown(), end="")


if __name__ == "__main__":
    main()
