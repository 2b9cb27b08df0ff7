# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Learn the counts of the text coder ``static`` from captions and write its model file.

    python -m training.words.train_static --captions flickr8k.tar --out shared/picogram/text

Texts in: the captions of the first nine tenths of the tar's photos by name, and ``dense.jsonl`` beside this file. Out:
``static_model.bin`` and its manifest ``static_model.json``. Takes a few minutes; the same texts give the same counts.

Steps: byte pairs within words are merged into tokens; texts are cut into the cheapest tokens; runs of one to three tokens
are counted; of the runs of three, then of two, those are kept that save the most bits over the table below, to which
the counts of the others fall.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import re
import tarfile
import zlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from picogram.text.static import MODEL_FILE, SHARES, StaticModel, count, segment, write_with
from picogram.text.token_rangecoder import WideRangeEncoder

DENSE = Path(__file__).with_name("dense.jsonl")
COMMAND = "python -m training.words.train_static --captions flickr8k.tar --out shared/picogram/text"
DISCOUNT = 0.75
"""Taken from each count before it is compared or stored: what was seen once is mostly chance."""
UNSEEN = 8192
"""A printable byte that captions lack, or one that starts a character of another script, counts as one in so many."""
LOGARITHMS = [math.log2(count(level)) for level in range(64)]

_WORD = re.compile(rb" ?[A-Za-z']+| ?[0-9]+| ?[^\sA-Za-z0-9']+|\s+")
_END = b""

History = tuple[bytes, ...]
Runs = dict[History, Counter[bytes]]
Kept = dict[History, dict[bytes, float]]


@dataclass(frozen=True)
class StaticRecipe:
    """How large the model is, and how much a dense text weighs against a short caption."""

    merges: int = 2000
    dense_weight: int = 2
    runs_of_three: int = 45_000
    runs_of_two: int = 25_000


def captions(path: Path) -> tuple[list[str], list[str]]:
    """All captions of the tar's training photos, and those of the last tenth by name."""
    with tarfile.open(path) as tar:
        file = tar.extractfile("captions.jsonl")
        assert file is not None
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: row["file"])
    cut = int(len(rows) * 0.9)
    flat = [
        [caption.strip() for row in part for caption in row["captions"]] for part in (rows[:cut], rows[cut:])
    ]
    return flat[0], flat[1]


def weighted_texts(short: Iterable[str], dense: Iterable[str], recipe: StaticRecipe) -> Counter[bytes]:
    """UTF-8 of the texts and their weights."""
    texts = Counter(text.encode() for text in short)
    for text in dense:
        texts[text.encode()] += recipe.dense_weight
    return texts


def merged_pairs(texts: Counter[bytes], merges: int) -> list[bytes]:
    """The strings that byte-pair merging within words makes, the most frequent pair first."""
    words: Counter[bytes] = Counter()
    for text, weight in texts.items():
        for word in _WORD.findall(text):
            words[word] += weight
    pieces = [[word[i : i + 1] for i in range(len(word))] for word in words]
    weights = list(words.values())
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    places: dict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for index, parts in enumerate(pieces):
        for pair in pairwise(parts):
            pairs[pair] += weights[index]
            places[pair].add(index)
    queue = [(-number, pair) for pair, number in pairs.items()]
    heapq.heapify(queue)
    found: list[bytes] = []
    while len(found) < merges and queue:
        number, pair = heapq.heappop(queue)
        if pairs[pair] != -number:  # an old entry; the pair was put in again when its number changed
            continue
        found.append(b"".join(pair))
        touched = set()
        for index in places.pop(pair):
            touched |= _merge(pieces, index, pair, pairs, places, weights[index])
        for other in touched:
            if pairs[other] > 0:
                heapq.heappush(queue, (-pairs[other], other))
    return list(dict.fromkeys(found))


def _merge(
    pieces: list[list[bytes]],
    index: int,
    pair: tuple[bytes, bytes],
    pairs: Counter[tuple[bytes, bytes]],
    places: dict[tuple[bytes, bytes], set[int]],
    weight: int,
) -> set[tuple[bytes, bytes]]:
    """Merge one pair in one word; the pairs whose numbers changed."""
    old, new = pieces[index], []
    at = 0
    while at < len(old):
        step = 2 if tuple(old[at : at + 2]) == pair else 1
        new.append(b"".join(old[at : at + step]))
        at += step
    for other in pairwise(old):
        pairs[other] -= weight
    for other in pairwise(new):
        pairs[other] += weight
        places[other].add(index)
    pieces[index] = new
    return set(pairwise(old)) | set(pairwise(new))


def tokenise(texts: Counter[bytes], merged: list[bytes], rounds: int = 3) -> dict[bytes, list[bytes]]:
    """Each text's cheapest tokens, where a token costs what its own frequency in the last round says."""
    strings = [bytes([byte]) for byte in range(256)] + merged
    costs = dict.fromkeys(strings, 1)
    for _ in range(rounds):
        cut = {text: segment(text, costs) for text in texts}
        seen: Counter[bytes] = Counter()
        for text, tokens in cut.items():
            for token in tokens:
                seen[token] += texts[text]
        total = sum(seen.values())
        costs = {s: round(4 * math.log2(total / (seen[s] + 0.5))) for s in strings if seen[s] or len(s) == 1}
    return cut


def runs_of(cut: dict[bytes, list[bytes]], texts: Counter[bytes], length: int) -> Runs:
    """How often each token follows each ``length - 1`` tokens; END stands before the first and after the last."""
    runs: Runs = defaultdict(Counter)
    for text, tokens in cut.items():
        whole = [_END, *tokens, _END]
        for at in range(length - 1, len(whole)):
            runs[tuple(whole[at - length + 1 : at])][whole[at]] += texts[text]
    return runs


def select(runs: Runs, number: int, below: Callable[[History, bytes], float]) -> Kept:
    """The runs that save most bits over ``below``, which gives a token's probability without the first of a history.

    Returns for each history the kept tokens' parts of its total.
    """
    gains = []
    for history, followers in runs.items():
        total = sum(followers.values())
        rest = sum(min(DISCOUNT, n) for n in followers.values()) / total
        for token, n in followers.items():
            part = (n - DISCOUNT) / total
            without = below(history[1:], token)
            gain = (n - DISCOUNT) * math.log2((part + rest * without) / ((rest + part) * without))
            if n > 1 and gain > 0:
                gains.append((gain, history, token, part))
    gains.sort(reverse=True)
    kept: Kept = defaultdict(dict)
    for _, history, token, part in gains[:number]:
        kept[history][token] = part
    return kept


def fallen(runs: Runs, kept: Kept) -> Runs:
    """The counts that fall to the table below: all of a run that is not kept, the discount of one that is."""
    lower: Runs = defaultdict(Counter)
    for history, followers in runs.items():
        for token, n in followers.items():
            lower[history[1:]][token] += DISCOUNT if token in kept.get(history, ()) else n  # type: ignore[assignment]  # counts may be shares
    return lower


def continued(runs: Runs) -> Runs:
    """In how many histories' tails each token follows: the lower tables' estimate before anything is selected."""
    lower: Runs = defaultdict(Counter)
    for history, followers in runs.items():
        for token in followers:
            lower[history[1:]][token] += 1
    return lower


def interpolated(tables: list[Runs], size: int) -> Callable[[History, bytes], float]:
    """Probability of a token after a history under tables for histories of 0, 1, ... tokens."""
    sums = [
        {h: (f, sum(f.values()), sum(min(DISCOUNT, n) for n in f.values())) for h, f in t.items()}
        for t in tables
    ]

    def probability(history: History, token: bytes) -> float:
        value = 1 / size
        for length in range(len(history) + 1):
            entry = sums[length].get(history[len(history) - length :])
            if entry:
                followers, total, rest = entry
                value = max(followers[token] - DISCOUNT, 0) / total + rest / total * value
        return value

    return probability


def learn(
    cut: dict[bytes, list[bytes]], texts: Counter[bytes], recipe: StaticRecipe
) -> tuple[Counter[bytes], Kept, Kept]:
    """Counts of tokens, and what is kept of the runs of two and of three."""
    threes, twos = runs_of(cut, texts, 3), runs_of(cut, texts, 2)
    size = 256 + recipe.merges
    first = continued(threes)
    first[(_END,)] = twos[(_END,)]  # no run of three ends with a text's first token
    below = interpolated([continued(twos), first], size)
    kept_threes = select(threes, recipe.runs_of_three, below)
    twos_left = fallen(threes, kept_threes)
    twos_left[(_END,)] = twos[(_END,)]
    kept_twos = select(twos_left, recipe.runs_of_two, below)
    ones = fallen(twos_left, kept_twos)[()]
    return ones, kept_twos, kept_threes


def admit_other_scripts(ones: Counter[bytes], twos: Kept) -> None:
    """Give bytes that captions lack a chance, and bytes over 127 the order that UTF-8 gives them."""
    singles = [bytes([byte]) for byte in range(256)]
    following, leading = singles[0x80:0xC0], singles[0xC2:0xF5]
    least = sum(ones.values()) / UNSEEN
    for byte in (b"\n", *singles[0x20:0x7F], *leading):
        ones[byte] = max(ones[byte], least)  # type: ignore[assignment]  # counts may be shares
    for byte in leading:
        twos[(byte,)] = dict.fromkeys(following, 0.97 / len(following))
    for byte in following:
        after = dict.fromkeys(leading, 0.4 / len(leading)) | dict.fromkeys(following, 0.5 / len(following))
        twos[(byte,)] = after


def level_of(value: float) -> int:
    """The level whose count is nearest, as a ratio."""
    wanted = math.log2(max(value, 1))
    above = bisect_left(LOGARITHMS, wanted)
    return above - (above > 0 and wanted - LOGARITHMS[above - 1] < LOGARITHMS[above] - wanted)


def packed(ones: Counter[bytes], twos: Kept, threes: Kept) -> bytes:
    """The model file before compression."""
    used = {s for kept in (twos, threes) for h, f in kept.items() for s in (*h, *f)}
    singles = {bytes([byte]) for byte in range(256)}
    strings = sorted(singles | used | {_END} | set(ones), key=lambda s: (-level_of(ones[s]), s))
    ids = {string: token for token, string in enumerate(strings)}
    out = [_numbers([len(strings)]), bytes(map(len, strings)), b"".join(strings)]
    out.append(bytes(level_of(ones[s]) for s in strings))
    out.append(bytes((s,) in twos for s in strings))
    out += _contexts([twos[(s,)] for s in strings if (s,) in twos], ids)
    followers: dict[bytes, list[bytes]] = defaultdict(list)
    for first, second in sorted(threes, key=lambda h: [ids[s] for s in h]):
        followers[first].append(second)
    out.append(_numbers([len(followers[s]) for s in strings]))
    out.append(_numbers(step for s in strings for step in _steps([ids[t] for t in followers[s]])))
    out += _contexts([threes[s, t] for s in strings for t in followers[s]], ids)
    return b"".join(out)


def _contexts(contexts: list[dict[bytes, float]], ids: dict[bytes, int]) -> list[bytes]:
    """Shares, sizes, ids and levels of contexts, in order."""
    rows = [sorted((ids[token], part) for token, part in context.items()) for context in contexts]
    shares = bytes(min(SHARES - 1, max(1, round(SHARES * sum(part for _, part in row)))) for row in rows)
    steps = [step for row in rows for step in _steps([token for token, _ in row])]
    levels = [level_of(part / min(p for _, p in row)) for row in rows for _, part in row]
    return [shares, _numbers(map(len, rows)), _numbers(steps), bytes(levels)]


def _steps(ascending: list[int]) -> list[int]:
    return [above - below - 1 for below, above in pairwise([-1, *ascending])]


def _numbers(values: Iterable[int]) -> bytes:
    """16-bit numbers: all low bytes, then all high bytes."""
    listed = list(values)
    return bytes(v & 255 for v in listed) + bytes(v >> 8 for v in listed)


def mean_bits(model: StaticModel, texts: list[str]) -> tuple[float, float]:
    """Bits for each character and for each text, whole bytes, end included."""
    bits = 0
    for text in texts:
        encoder = WideRangeEncoder()
        write_with(model, encoder, text)
        bits += 8 * len(encoder.finish())
    return bits / sum(map(len, texts)), bits / len(texts)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--captions", type=Path, required=True, help="tar with captions.jsonl")
    made.add_argument("--out", type=Path, required=True, help="folder for the model and its manifest")
    return made


def main() -> None:
    arguments = parser().parse_args()
    short, held_out = captions(arguments.captions)
    dense = [json.loads(line)["text"] for line in DENSE.read_text().splitlines()]
    recipe = StaticRecipe()
    texts = weighted_texts(short, dense, recipe)
    cut = tokenise(texts, merged_pairs(texts, recipe.merges))
    ones, twos, threes = learn(cut, texts, recipe)
    admit_other_scripts(ones, twos)
    data = packed(ones, twos, threes)
    file = zlib.compress(data, 9)
    per_character, per_text = mean_bits(StaticModel(data), held_out[::8])
    described = hashlib.sha256(DENSE.read_bytes()).hexdigest()
    manifest = {
        "name": "static",
        "kind": "text",
        "file": MODEL_FILE,
        "size": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
        "licence": "Apache-2.0",
        "origin": "counts of Flickr8k captions (first 90 % by name) and of training/words/dense.jsonl",
        "training": {
            "command": COMMAND,
            "recipe": vars(recipe),
            "captions": len(short),
            "dense": len(dense),
            "dense_sha256": described,
        },
        "held_out": {"bits_per_character": round(per_character, 3), "bits_per_caption": round(per_text, 1)},
    }
    (arguments.out / MODEL_FILE).write_bytes(file)
    (arguments.out / "static_model.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
