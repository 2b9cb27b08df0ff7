# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Damaged ``.pico`` files: only PicogramError may come out, quickly and without much memory.

    python benchmarks/fuzz_container.py --mutations 100000 --decode-share 0.001
    python benchmarks/fuzz_container.py --atheris -max_total_time=600

    golden files ── mutate (half of them with a fresh checksum) ──> parse, sometimes decode ──> table

The second form needs ``pip install atheris`` and fuzzes with coverage; what follows ``--atheris`` is libFuzzer's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from picogram.bitstream import Header, Limits, Picogram, Profile, parse, serialise
from picogram.bitstream.container import check, section_sizes
from picogram.errors import PicogramError
from picogram.models import DEFAULT_LATENT
from picogram.semantics.description import Description, Region
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
CRC_BYTES = 4
SLOW_PARSE_S = 0.05
DECODE_LIMITS = Limits(max_pixels=1_000_000)  # a large picture is slow, not wrong
WORDS = Words(TextCoder())

Mutation = Callable[[bytearray, list[bytes], random.Random], None]


def flip_bits(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_bytes(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def set_header(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    """Bytes among the first twelve, where the fields are."""
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(min(12, len(data)))] = rng.randrange(256)


def truncate(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def insert(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place:place] = rng.randbytes(rng.randint(1, 32))


def delete(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.randint(1, 32)]


def splice(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    """The head of one file and the tail of another."""
    other = rng.choice(corpus)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, set_bytes, set_header, truncate, insert, delete, splice)


def seal(data: bytes) -> bytes:
    """The file with checksums that fit, so that the parser behind them is reached."""
    body = data[:-CRC_BYTES]
    try:
        sizes = section_sizes(data)
    except (PicogramError, IndexError):  # no layout: whatever stands there is as good
        sizes = {"latent": 0}
    if len(sizes) == 1:
        return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")
    words = len(body) - (sum(sizes.values()) - sizes["latent"])
    return body + check(body[:words]) + check(body[words:])


def mutate(corpus: list[bytes], rng: random.Random) -> tuple[str, bytes]:
    """A damaged file and the name of the damage."""
    data = bytearray(rng.choice(corpus))
    mutation = rng.choice(MUTATIONS)
    mutation(data, corpus, rng)
    if rng.random() < 0.5:
        return f"{mutation.__name__}+crc", seal(bytes(data))
    return mutation.__name__, bytes(data)


def load_corpus(folder: Path) -> list[bytes]:
    """The golden files with and without words, or hand-made containers (which reach the parser, not the codec)."""
    files = [path.read_bytes() for path in sorted(folder.glob("*.pico"))]
    if files:
        return files + [with_words(file) for file in files]
    print(f"no .pico files in {folder}: using hand-made containers", file=sys.stderr)
    header = Header(Profile.BASE, 768, 512, DEFAULT_LATENT)
    plain = serialise(Picogram(header, bytes(range(100))))
    return [plain, serialise(Picogram(header, bytes(300), {"caption": b"a dog", "objects": bytes(40)}))]


def with_words(data: bytes) -> bytes:
    """The same picture with a caption and objects, coded without the language model."""
    file = parse(data)
    masks = [np.eye(side, dtype=np.bool_) for side in (8, 16)]
    objects = (Region("dog", "black, wet", masks[0]), Region("ball", "", masks[1]))
    (sections,) = WORDS.code([Description("a black dog runs after a ball \U0001f415", objects)])
    header = replace(file.header, profile=Profile.SEDIC)
    return serialise(Picogram(header, file.latent, sections.optional))


def outcome(action: Callable[[], object]) -> str:
    """What came of it: a PicogramError's name or ``ok``; anything else escapes."""
    try:
        action()
    except PicogramError as error:
        return type(error).__name__
    return "ok"


def decode(data: bytes) -> object:
    """The whole way to the picture and its words."""
    import picogram

    return picogram.decode_detailed(data, limits=DECODE_LIMITS, words=WORDS)


def plain(corpus: list[bytes], mutations: int, decode_share: float, seed: int, out: Path | None) -> int:
    """Mutate, parse, sometimes decode; prints a table and returns the number of failures."""
    rng = random.Random(seed)
    outcomes: Counter[tuple[str, str, str]] = Counter()
    failures, slowest, start = 0, 0.0, time.perf_counter()
    for number in range(mutations):
        name, data = mutate(corpus, rng)
        actions: dict[str, Callable[[bytes], object]] = {"parse": parse}
        if rng.random() < decode_share:
            actions["decode"] = decode
        for verb, action in actions.items():
            begin = time.perf_counter()
            try:
                result = outcome(lambda action=action, data=data: action(data))  # type: ignore[misc]
            except Exception as error:  # the point of the exercise
                failures += 1
                result = f"ESCAPED {type(error).__name__}"
                print(f"mutation {number} ({name}), {verb}: {error!r}\n  {data.hex()}", file=sys.stderr)
            if verb == "parse":
                slowest = max(slowest, time.perf_counter() - begin)
            outcomes[verb, name, result] += 1
    print_table(outcomes)
    print(f"{mutations} mutations of {len(corpus)} files in {time.perf_counter() - start:.1f} s, seed {seed}")
    print(f"slowest parse {slowest * 1000:.2f} ms; {failures} escaped")
    if out:
        totals: Counter[str] = Counter()
        for (verb, _, result), count in outcomes.items():
            totals[f"{verb}: {result}"] += count
        facts = {"mutations": mutations, "files": len(corpus), "seed": seed, "escaped": failures}
        out.write_text(json.dumps(facts | {"outcomes": dict(sorted(totals.items()))}, indent=1) + "\n")
    return failures + (slowest > SLOW_PARSE_S)


def print_table(outcomes: Counter[tuple[str, str, str]]) -> None:
    """Counts by verb and damage (rows) and outcome (columns)."""
    from rich.console import Console
    from rich.table import Table

    columns = sorted({result for _, _, result in outcomes})
    table = Table("verb", "damage", *columns)
    for verb, name in sorted({key[:2] for key in outcomes}):
        table.add_row(verb, name, *(str(outcomes[verb, name, column] or "") for column in columns))
    Console(width=max(100, 18 * len(columns))).print(table)


def atheris_main(corpus: list[bytes], arguments: list[str]) -> None:
    """Coverage-guided fuzzing of the parser, and of the decoder for files that parse."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("fuzzing with coverage needs atheris: `pip install atheris`; or use --mutations N")

    def one_input(data: bytes) -> None:
        for candidate in (data, seal(data)):
            if outcome(lambda candidate=candidate: parse(candidate)) == "ok":  # type: ignore[misc]
                outcome(lambda candidate=candidate: decode(candidate))  # type: ignore[misc]

    folder = Path("build", "fuzz-corpus")
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus):
        (folder / f"golden-{number}").write_bytes(data)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments, str(folder)], one_input)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--decode-share", type=float, default=0.002, help="share of files decoded too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--golden", type=Path, default=GOLDEN)
    parser.add_argument("--json", type=Path, help="write the totals there")
    parser.add_argument("--atheris", nargs=argparse.REMAINDER, help="the rest is libFuzzer's")
    given = parser.parse_args()
    corpus = load_corpus(given.golden)
    if given.atheris is not None:
        atheris_main(corpus, given.atheris)
        return
    sys.exit(1 if plain(corpus, given.mutations, given.decode_share, given.seed, given.json) else 0)


if __name__ == "__main__":
    main()
