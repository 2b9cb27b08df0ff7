# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Are coded words the same bytes everywhere? Texts across kernels, batches, threads and instruction sets.

    python -m benchmarks.text_exactness [--texts 2000] [--captions flickr8k.tar] [--sections SECTIONS.json]

The texts, captions and random strings, are coded once. Then a process for each number of threads and instruction set
encodes and decodes a share of them with each kernel and batch size, and compares bytes and texts. Prints mismatches and
writes ``benchmarks/results/text_exactness.json``; ``--sections`` keeps the sections for another engine to read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.text_coders import flickr_captions
from picogram.exact.split_linear import SplitKernel, int8_is_exact
from picogram.models.store import text_model_file
from picogram.text.coder import TextCoder
from picogram.text.lm.exact_lm import ExactLM
from picogram.text.lm.lm_coder import LMCoder
from picogram.text.lm.loading_lm import load_lm_coder, load_tokenizer

KERNELS: tuple[SplitKernel, ...] = ("int8", "float32", "float64")
BATCHES = (1, 8, 16)
INSTRUCTION_SETS = ("DEFAULT", "AVX2")
THREADS = (1, 2)
SEED = 11


def make_texts(count: int, captions: Path | None) -> list[str]:
    """Half captions, if there are any; the rest random words, and strings of any characters."""
    rng = random.Random(SEED)
    pieces = [p.decode("utf-8", "ignore") for p in load_tokenizer().pieces.values()]
    texts = flickr_captions(captions, count // 2) if captions else []
    while len(texts) < count:
        if rng.random() < 0.7:
            texts.append("".join(rng.choice(pieces) for _ in range(rng.randint(1, 9))))
        else:
            texts.append(
                "".join(chr(rng.choice((rng.randint(32, 126), rng.randint(160, 0xD7FF)))) for _ in range(6))
            )
    rng.shuffle(texts)
    return texts


def compare(texts: list[str], sections: list[bytes], kernel: SplitKernel, batch: int) -> tuple[int, int]:
    """Mismatches of bytes and of texts, in batches of one size with one kernel."""
    from safetensors.torch import load_file

    shipped = load_lm_coder()
    model = ExactLM(load_file(text_model_file()), kernel=kernel)
    coder = TextCoder(LMCoder(model, shipped.tokens, shipped.prompts))
    wrong_bytes = wrong_texts = 0
    for start in range(0, len(texts), batch):
        part, wanted = texts[start : start + batch], sections[start : start + batch]
        found = [c.section for c in coder.encode(part, coders=("exact-lm",), kinds=("short", "plain"))]
        wrong_bytes += sum(a != b for a, b in zip(found, wanted, strict=True))
        wrong_texts += sum(a != b for a, b in zip(coder.decode(wanted), part, strict=True))
    return wrong_bytes, wrong_texts


def worker(path: Path, part: int, parts: int) -> None:
    """One process: its share of the texts, split over kernels and batches."""
    stored = json.loads(path.read_text())[part::parts]
    settings = [(k, b) for k in KERNELS for b in BATCHES if k != "int8" or int8_is_exact()]
    rows = []
    for number, (kernel, batch) in enumerate(settings):
        own = stored[number :: len(settings)]
        texts, sections = [t for t, _ in own], [bytes.fromhex(s) for _, s in own]
        wrong = compare(texts, sections, kernel, batch)
        rows.append(
            {"kernel": kernel, "batch": batch, "texts": len(own), "bytes": wrong[0], "decoded": wrong[1]}
        )
    print(json.dumps(rows))


def run(path: Path, threads: int, instructions: str, part: int, parts: int) -> list[dict[str, Any]]:
    """A worker in an environment of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if instructions != "DEFAULT":
        environment["ONEDNN_MAX_CPU_ISA"] = instructions
    command = [
        sys.executable,
        "-m",
        "benchmarks.text_exactness",
        "--worker",
        str(path),
        str(part),
        str(parts),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return [{"threads": threads, "instructions": instructions, **row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--sections", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/text_exactness.json"))
    args = parser.parse_args()
    if args.worker:
        worker(Path(args.worker[0]), int(args.worker[1]), int(args.worker[2]))
        return
    started = time.time()
    texts = make_texts(args.texts, args.captions)
    coded = TextCoder(load_lm_coder()).encode(texts, coders=("exact-lm",), kinds=("short", "plain"))
    stored = [[t, c.section.hex()] for t, c in zip(texts, coded, strict=True)]
    path = args.sections or Path(tempfile.mkdtemp()) / "sections.json"
    path.write_text(json.dumps(stored))
    print(f"{len(texts)} texts coded in {time.time() - started:.0f} s", flush=True)
    settings = [(t, i) for t in THREADS for i in INSTRUCTION_SETS]
    rows = []
    for part, (threads, instructions) in enumerate(settings):
        rows += run(path, threads, instructions, part, len(settings))
        print(rows[-1], flush=True)
    wrong = sum(row["bytes"] + row["decoded"] for row in rows)
    checked = sum(row["texts"] for row in rows)
    print(
        f"{checked} texts encoded and decoded in {len(rows)} settings: {wrong} mismatches, {time.time() - started:.0f} s"
    )
    args.out.write_text(
        json.dumps({"texts": checked, "mismatches": wrong, "settings": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
