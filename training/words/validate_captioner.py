# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""BLEU-4 and CIDEr of the shipped captioner on the held-out tenth of Flickr8k, against all five human captions.

    python -m training.words.validate_captioner --data flickr8k.tar [--photos 809] [--beams 5] --out SCORES.json

``shuffled`` scores each caption against another photo's humans: what a captioner that does not look would get.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from picogram.semantics.captioner import EmbeddedCaptioner, load_captioner
from picogram.text.lm.generate import BeamSearch
from training.words.data import captioned


def words(text: str) -> str:
    """Lower case, words only: as the field's scripts see captions."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def scores(captions: list[str], references: list[list[str]]) -> dict[str, float]:
    found = {i: [words(c)] for i, c in enumerate(captions)}
    wanted = {i: [words(r) for r in group] for i, group in enumerate(references)}
    bleu = Bleu(4).compute_score(wanted, found, verbose=0)[0]
    return {"bleu4": round(bleu[3], 4), "cider": round(float(Cider().compute_score(wanted, found)[0]), 4)}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--photos", type=int, default=809)
    made.add_argument("--beams", type=int, default=5)
    made.add_argument("--penalty", type=float, default=0.7)
    made.add_argument(
        "--no-insist", action="store_true", help="captions need not name an object that was found"
    )
    made.add_argument("--out", type=Path)
    return made


def main() -> None:
    args = parser().parse_args()
    shipped = load_captioner()
    shipped.search = BeamSearch(beams=args.beams, penalty=args.penalty)
    shipped.insist = not args.no_insist
    rows = captioned(args.data)[1][: args.photos]
    captions = write(shipped, args.data, [row["file"] for row in rows])
    references = [row["captions"] for row in rows]
    result: dict[str, Any] = {"photos": len(rows), **scores(captions, references)}
    result["shuffled"] = scores(captions, references[1:] + references[:1])
    result["empty"] = sum(not c for c in captions)
    print(json.dumps(result))
    for row, caption in list(zip(rows, captions, strict=True))[:12]:
        print(f"  {row['file']}: {caption} | {row['captions'][0]}")
    if args.out:
        args.out.write_text(json.dumps(result))


def write(captioner: EmbeddedCaptioner, tar: Path, files: list[str]) -> list[str]:
    captions: list[str] = []
    with tarfile.open(tar) as archive:
        for start in range(0, len(files), 8):
            photos = [
                Image.open(io.BytesIO(archive.extractfile(name).read())).convert("RGB")  # type: ignore[union-attr]
                for name in files[start : start + 8]
            ]
            captions += [d.caption for d in captioner.describe(photos, objects=False)]
    return captions


if __name__ == "__main__":
    main()
