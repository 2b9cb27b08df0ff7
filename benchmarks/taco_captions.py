# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Does the encoder of profile ``taco`` gain by listening, and to the right words? At equal file bytes.

    python -m benchmarks.taco_captions --photos kodak/ --bpp 0.015 0.03 0.05 --out kodak.json   # the captioner's captions
    python -m benchmarks.taco_captions --photos photos/ --captions captions.csv --out photos.json   # people's captions
    python -m benchmarks.taco_captions --held-out flickr8k.tar --limit 48 --out photos.json         # the same from a tar

    pictures, captions ── CaptionedPicture ── captions_tried ── api.prepare ──> for each rate a file of each variant
        ──> LPIPS (alex), DISTS, PSNR, meaning ──> JSON, and Markdown on the standard output

The CSV is that of ``picogram bench --captions``. Needs the models ``metrics``, ``text`` and ``features``. The captions
that were tried are in the JSON, which is written anew after every picture.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.equal_bytes import Metric, Scores, VariantRow, at_budget, markdown, summary
from picogram import api
from picogram.bench.ablate import model_digests, program_versions
from picogram.bench.comparison import pictures_in
from picogram.bench.measuring import Backbones, Reference, budget_bytes
from picogram.bench.result_tables import write
from picogram.bench.semantic import Semantic
from picogram.bench.word_variants import Found, donors, read_captions
from picogram.errors import BudgetTooSmall, PicogramError, UsageError
from picogram.images import read_image
from picogram.metrics import weights
from picogram.pipeline.prepare import PreparedWords
from picogram.processor import has_fast_bfloat16
from picogram.request import EncodeOptions
from picogram.semantics.words import Words, default_words

BASE, DRAWN = "base, 0 steps", "base, as drawn"
CORRECT, EMPTY, SHUFFLED, OTHER, CAPTIONER = (
    f"taco, {words}"
    for words in ("correct", "empty", "words shuffled", "another picture's", "the captioner's")
)
PAIRS = (
    *((variant, BASE) for variant in (DRAWN, CORRECT, EMPTY, SHUFFLED, OTHER, CAPTIONER)),
    *((variant, EMPTY) for variant in (CORRECT, SHUFFLED, OTHER, CAPTIONER)),
    *((CORRECT, other) for other in (SHUFFLED, OTHER)),
)
"""Which changes are told: by the profile, by words at all, by the right ones."""
METRICS = (
    Metric("lpips", "LPIPS↓", 4, share=True),
    Metric("dists", "DISTS↓", 4, share=True),
    Metric("psnr", "PSNR↑", 2),
    Metric("semantic", "semantic↑", 4),
    Metric("agreement", "agreement↑", 4),
)
BPPS = (0.015, 0.03, 0.05)
SEED = 1
"""Of the orders that words are put in."""
_BATCH = 8

Encode = Callable[[int], bytes]
Measure = Callable[[Image.Image], Mapping[str, float]]


@dataclass(frozen=True)
class CaptionedPicture:
    """An RGB picture and what people say of it; None: nobody said anything."""

    name: str
    picture: Image.Image
    caption: str | None = None


@dataclass
class TacoResult:
    """A whole run; ``pictures``: by name their size, SHA-256 and the captions of all variants."""

    settings: dict[str, Any]
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[VariantRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "settings": self.settings,
            "versions": program_versions(),
            "models": model_digests(),
            "pictures": self.pictures,
            "left_out": self.left_out,
            **summary(self.rows, PAIRS, METRICS),
        }


def from_folder(folder: Path, captions: Path | None, limit: int | None) -> list[CaptionedPicture]:
    """Pictures of a folder by name. Raises UsageError and ImageError."""
    paths = pictures_in(folder, limit)
    said = read_captions(captions, [path.name for path in paths]) if captions else {}
    return [CaptionedPicture(path.name, read_image(path), said.get(path.name)) for path in paths]


def held_out(tar: Path, limit: int | None) -> list[CaptionedPicture]:
    """Photographs at an even pace of the last tenth of a captioned tar, 256x192 or 192x256; each with its first caption.

    Raises UsageError for a file that is no such tar.
    """
    from training.photos import decode, read_tar

    try:
        photos = [photo for photo in read_tar(tar, held=True) if photo.captions]
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{tar} holds no captioned photographs: {error}") from error
    if not photos:
        raise UsageError(f"{tar} holds no captioned photographs")
    chosen = photos[:: max(1, len(photos) // (limit or len(photos)))][:limit]
    subjects = []
    for number, photo in enumerate(chosen):
        picture = Image.fromarray(decode(photo.data, photo.aspect))
        subjects.append(CaptionedPicture(f"{number:02d}", picture, photo.captions[0]))
    return subjects


def captions_tried(subjects: Sequence[CaptionedPicture], words: Words) -> dict[str, dict[str, str]]:
    """By picture and variant of ``taco`` the caption. Where people said nothing, the captioner's is the correct one.

    Raises UsageError if there is no other picture with another caption, and what the captioner raises.
    """
    heard = [
        description.caption
        for start in range(0, len(subjects), _BATCH)
        for description in words.describe([s.picture for s in subjects[start : start + _BATCH]], False)
    ]
    said = {s.name: h if s.caption is None else s.caption for s, h in zip(subjects, heard, strict=True)}
    found = {name: Found(caption) for name, caption in said.items()}
    tried = {}
    for subject, caption in zip(subjects, heard, strict=True):
        own = said[subject.name]
        tried[subject.name] = {
            CORRECT: own,
            EMPTY: "",
            SHUFFLED: words_shuffled(own),
            OTHER: said[donors(subject.name, found)[0]],
        }
        if subject.caption is not None:
            tried[subject.name][CAPTIONER] = caption
    return tried


def words_shuffled(caption: str) -> str:
    """The same words in another order, always the same one; where there is no other, as they are."""
    words = caption.split()
    order = random.Random(f"{SEED} {caption}")
    if len(set(words)) > 1:
        while words == caption.split():
            order.shuffle(words)
    return " ".join(words)


def run(
    subjects: Sequence[CaptionedPicture],
    bpps: Sequence[float],
    words: Words,
    measure: Callable[[CaptionedPicture, str], Measure],
    result: TacoResult,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Add to ``result``, ``done`` after every picture; ``measure``: what compares with a subject and its correct caption.

    A picture that does not fit a budget in some variant is left out of all at that rate.
    """
    tried = captions_tried(subjects, words)
    for subject in track(subjects, "", console=Console(stderr=True)):
        captions = tried[subject.name]
        result.pictures[subject.name] = _about(subject, captions)
        asked = [EncodeOptions(profile="taco", caption=caption) for caption in captions.values()]
        heard = api.prepare([subject.picture] * len(asked), asked, words=words)
        compare = measure(subject, captions[CORRECT])
        for bpp in bpps:
            try:
                result.rows += _rows(subject, bpp, dict(zip(captions, heard, strict=True)), compare)
            except BudgetTooSmall as error:
                result.left_out.append(f"{subject.name} at {bpp:g} bpp: {error}")
        done()


def _rows(
    subject: CaptionedPicture, bpp: float, heard: Mapping[str, PreparedWords], compare: Measure
) -> list[VariantRow]:
    budget = budget_bytes(bpp, subject.picture.size)
    base = _encoder(subject, PreparedWords(), "base")
    cases: dict[str, tuple[Encode, int | None]] = {
        BASE: (base, 0),
        DRAWN: (base, None),
        **{variant: (_encoder(subject, prepared, "taco"), None) for variant, prepared in heard.items()},
    }

    def score(steps: int | None, data: bytes) -> Scores:
        found = compare(api.decode(data, steps=steps))
        return {metric.key: found[metric.key] for metric in METRICS}

    return [
        VariantRow(subject.name, bpp, variant, budget, at_budget(encode, partial(score, steps), budget))
        for variant, (encode, steps) in cases.items()
    ]


def _encoder(subject: CaptionedPicture, prepared: PreparedWords, profile: str) -> Encode:
    """Remembers its files."""
    return cache(
        lambda most: api.assemble(subject.picture, prepared, EncodeOptions(bytes=most, profile=profile)).data
    )


def _about(subject: CaptionedPicture, captions: Mapping[str, str]) -> dict[str, Any]:
    picture = subject.picture
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    size = {"width": picture.width, "height": picture.height}
    return {**size, "sha256": digest, "captions": dict(captions)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.taco_captions", description=(__doc__ or "").splitlines()[0]
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--photos", type=Path, help="a folder of pictures")
    source.add_argument("--held-out", type=Path, help="a captioned tar, of which the last tenth is taken")
    parser.add_argument("--captions", type=Path, help="CSV with image_name and overall_description")
    parser.add_argument("--bpp", type=float, nargs="+", default=list(BPPS))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.captions and given.held_out:
        parser.error("--held-out has captions of its own")
    if given.limit is not None and given.limit < 2:
        parser.error("--limit: captions are exchanged between pictures, of which there must be two")
    return given


def main() -> None:
    given = _arguments()
    try:
        if not all(0 < bpp <= 24 for bpp in given.bpp):
            raise UsageError("rates are bits per pixel, above 0 and up to 24")
        subjects = (
            held_out(given.held_out, given.limit)
            if given.held_out
            else from_folder(given.photos, given.captions, given.limit)
        )
        semantic, backbones = Semantic(), Backbones(weights.require(), has_fast_bfloat16())
        captions = "the captioner's" if given.photos and not given.captions else "people's"
        result = TacoResult({"bpps": given.bpp, "captions": captions, "seed": SEED, "space": semantic.name})

        def measure(subject: CaptionedPicture, caption: str) -> Measure:
            meaning = semantic.against(subject.picture, caption)
            return Reference(subject.picture, backbones, meaning).metrics

        def save() -> None:
            write(given.out, result.document())

        run(subjects, given.bpp, default_words(), measure, result, save)
    except PicogramError as error:
        sys.exit(str(error))
    print(markdown(result.rows, PAIRS, METRICS), end="")
    for sentence in result.left_out:
        print(f"Left out: {sentence}.")


if __name__ == "__main__":
    main()
