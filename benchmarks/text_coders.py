# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What words cost: bits of real sections for two sets of captions, by coder and prompt; and decoding times.

    python -m benchmarks.text_coders --kodak-captions CSV --flickr flickr8k.tar [--photos 200]

Sets: the captions of Kodak that Murai et al. released (column ``overall_description``), and the first captions of the
held-out tenth of Flickr8k. Prints a table and writes ``benchmarks/results/text.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
import zlib
from pathlib import Path
from typing import Any

import torch

from picogram.text.coder import CodedText, TextCoder
from picogram.text.lm.loading_lm import load_lm_coder
from training.words.data import captioned


def kodak_captions(path: Path) -> list[str]:
    """The 24 captions, in the order of the file."""
    with path.open(newline="") as file:
        return [row["overall_description"].strip() for row in csv.DictReader(file)]


def flickr_captions(path: Path, count: int) -> list[str]:
    """First captions of held-out photos."""
    return [row["captions"][0] for row in captioned(path)[1][:count]]


def row(
    name: str, sizes: list[float], characters: int, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    bits = statistics.mean(sizes)
    per_character = bits * len(sizes) / characters
    print(f"  {name:<34} {bits:8.1f} bits  {per_character:.3f} bits/char", flush=True)
    return {
        "name": name,
        "bits": round(bits, 2),
        "bits_per_character": round(per_character, 4),
        **(extra or {}),
    }


def measure(texts: list[str]) -> list[dict[str, Any]]:
    """All coders on one set of texts."""
    characters = sum(map(len, texts))
    coder = TextCoder(load_lm_coder())

    def sizes(coded: list[CodedText]) -> list[float]:
        return [8.0 * len(c.section) for c in coded]

    rows = [
        row("UTF-8", [8.0 * len(t.encode()) for t in texts], characters),
        row("zlib, level 9", [8.0 * len(zlib.compress(t.encode(), 9)) for t in texts], characters),
        row("static", sizes(coder.encode(texts, coders=("static",))), characters),
    ]
    for kinds in (("short",), ("dense",), None):
        coded = coder.encode(texts, coders=("exact-lm",), kinds=kinds)
        over = statistics.mean(8 * len(c.section) - (c.ideal_bits or 0) for c in coded)
        name = "exact-lm, " + (f"prompt {kinds[0]}" if kinds else "best prompt")
        rows.append(row(name, sizes(coded), characters, {"over_ideal": round(over, 2)}))
    return rows


def times(texts: list[str]) -> dict[str, Any]:
    """Seconds to decode captions of about 20 words, alone and in a batch of 16."""
    lm = load_lm_coder()
    coder = TextCoder(lm)
    chosen = sorted(texts, key=lambda t: abs(len(t.split()) - 20))[:16]
    sections = [c.section for c in coder.encode(chosen, coders=("exact-lm",))]
    coder.decode(sections[:1])
    start = time.perf_counter()
    for section in sections[:4]:
        coder.decode([section])
    alone = (time.perf_counter() - start) / 4
    start = time.perf_counter()
    coder.decode(sections)
    batch = (time.perf_counter() - start) / len(sections)
    found = {
        "words": statistics.mean(len(t.split()) for t in chosen),
        "alone_s": round(alone, 3),
        "batch_of_16_s": round(batch, 3),
        "kernel": lm.model.kernel,
        "threads": torch.get_num_threads(),
    }
    print(f"  decode, {found['words']:.0f} words: alone {alone:.2f} s, batch of 16 {batch:.3f} s a caption")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kodak-captions", type=Path, required=True)
    parser.add_argument("--flickr", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/text.json"))
    args = parser.parse_args()
    result: dict[str, Any] = {}
    print("24 LLaVA-1.5 captions of Kodak (Murai et al.)")
    result["kodak_llava"] = measure(kodak_captions(args.kodak_captions))
    texts = flickr_captions(args.flickr, args.photos)
    print(f"{len(texts)} held-out Flickr8k captions")
    result["flickr8k"] = measure(texts)
    result["decode"] = times(texts)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
