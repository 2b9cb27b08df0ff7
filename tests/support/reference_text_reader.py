# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A reader of text and objects sections written from docs/text.md alone: Python integers, NumPy float64, no shared code.

Bytes of a section enter, texts and masks leave. Damage is a ValueError.
"""

from __future__ import annotations

import bisect
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CODERS = ("exact-lm", "static", "vllm-float", "raw")
PROMPTS = ("short", "dense", "plain", "objects")
MAX_BYTES = 65536


class Stream:
    """The range decoder under "The range coder": a section's bytes, continued by zeros without end."""

    def __init__(self, data: bytes) -> None:
        self._bytes = itertools.chain(data, itertools.repeat(0))
        self._point = int.from_bytes(bytes(itertools.islice(self._bytes, 12)), "big")
        self._range = 1 << 96

    def symbol(self, size: int, below: Callable[[int], int]) -> int:
        """The next of ``size`` symbols; ``below(x)`` sums the counts before x, so ``below(size)`` is the total."""
        scale = self._range // below(size)
        target = self._point // scale
        if target >= below(size):
            raise ValueError("damaged: no symbol is there")
        found = bisect.bisect_right(range(size), target, key=below) - 1
        self._point -= scale * below(found)
        self._range = scale * (below(found + 1) - below(found))
        while self._range < 1 << 88:
            self._point = self._point << 8 | next(self._bytes)
            self._range <<= 8
        return found

    def choice(self, counts: Sequence[int]) -> int:
        """A symbol under a table of counts."""
        sums = [0, *itertools.accumulate(counts)]
        return self.symbol(len(counts), sums.__getitem__)

    def equal(self, total: int) -> int:
        """A symbol of equal parts."""
        return self.symbol(total, lambda x: x)


# --- exact-lm ---------------------------------------------------------------------------------------------------------

LAYERS, WIDTH, QUERY_HEADS, KEY_HEADS, HEAD = 30, 576, 9, 3, 64
MAX_TOKENS = 768


def rows_to_integers(x: Array, bits: int) -> tuple[Array, float]:
    """``quantise(x, b)`` of one row: its integers and their unit."""
    exponent = int(np.frexp(np.abs(x).max())[1])
    return np.rint(x * 2.0 ** (bits - 1 - exponent)), 2.0 ** (exponent - bits + 1)


class Linear:
    """A matrix of integers and a scale for each row, held in float64, where all their sums are exact."""

    def __init__(self, tensors: dict[str, npt.NDArray[np.generic]], name: str) -> None:
        self.weight = tensors.pop(name).astype(np.float64)
        self.scale = tensors.pop(name + ".scale").astype(np.float64)

    def __call__(self, x: Array) -> Array:
        n, unit = rows_to_integers(x, 14)
        y: Array = ((self.weight @ n) * unit) * self.scale
        return y


def normalised(x: Array, gain: Array) -> Array:
    """RMSNorm of the residual stream, integers in units of 2^-16."""
    s = max(0, int(np.frexp(np.abs(x).max())[1]) - 19)
    n, u = np.rint(x * 2.0**-s), 2.0 ** (s - 16)
    mean = (n * n).sum() / WIDTH
    y: Array = (n * (u / np.sqrt(mean * (u * u) + 1e-5))) * gain
    return y


def updated(x: Array, y: Array) -> Array:
    """The residual stream after a layer's output."""
    result: Array = np.clip(x + np.rint(y * 2.0**16), -(2.0**40), 2.0**40)
    return result


class Layer:
    """One of the model's layers with the keys and values of one text, ``[heads, positions, 64]``."""

    def __init__(self, tensors: dict[str, npt.NDArray[np.generic]], number: int) -> None:
        self.qkv, self.out = Linear(tensors, f"{number}.qkv"), Linear(tensors, f"{number}.out")
        self.gate_up, self.down = Linear(tensors, f"{number}.gate_up"), Linear(tensors, f"{number}.down")
        self.attention_gain = tensors.pop(f"{number}.attention_gain").astype(np.float64)
        self.mlp_gain = tensors.pop(f"{number}.mlp_gain").astype(np.float64)
        self.keys = self.values = np.zeros((KEY_HEADS, 0, HEAD))

    def start(self, prompt: Array) -> None:
        """Forget the last text and begin with a prompt, ``[2, n, 192]``."""
        heads = prompt.reshape(2, -1, KEY_HEADS, HEAD).transpose(0, 2, 1, 3)
        self.keys, self.values = heads[0], heads[1]

    def attend(self, y: Array, cos: Array, sin: Array, exp: Integers) -> Array:
        """Attention's answer to one position's queries, keys and values, ``[960]``, which it keeps."""
        heads = y.reshape(-1, HEAD)
        a, b = np.split(heads[: QUERY_HEADS + KEY_HEADS], 2, axis=1)
        turned = np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=1)
        turned = np.clip(np.rint(turned * 2.0**10), -(2.0**17), 2.0**17)
        value = np.clip(np.rint(heads[QUERY_HEADS + KEY_HEADS :] * 2.0**12), -(2.0**19), 2.0**19)
        self.keys = np.concatenate((self.keys, turned[QUERY_HEADS:, None]), axis=1)
        self.values = np.concatenate((self.values, value[:, None]), axis=1)
        queries = turned[:QUERY_HEADS].reshape(KEY_HEADS, -1, HEAD)
        scores = queries @ self.keys.transpose(0, 2, 1)
        distance = np.rint((scores.max(axis=2, keepdims=True) - scores) * 2.0**-13)
        e = exp[np.minimum(distance, 24575).astype(np.int64)].astype(np.float64)
        weights = np.rint(e * (2.0**20 / e.sum(axis=2, keepdims=True)))
        answer: Array = ((weights @ self.values) * 2.0**-32).reshape(WIDTH)
        return answer


class LanguageModel:
    """The model under "exact-lm" with its prompts and its vocabulary."""

    def __init__(self, model: Path, tokenizer: Path, prompts: Path) -> None:
        tensors = load_file(model)
        self.layers = [Layer(tensors, number) for number in range(LAYERS)]
        self.embedding, self.final_gain = Linear(tensors, "embedding"), tensors["final_gain"].astype(float)
        self.cos, self.sin = tensors["cos"] * 2.0**-30, tensors["sin"] * 2.0**-30
        self.sigmoid, self.exp = tensors["sigmoid"] * 2.0**-30, tensors["exp"].astype(np.int64)
        self.prompts = load_file(prompts)
        self.token_bytes = token_bytes(tokenizer)
        self.count_table = count_table()

    def start(self, prompt: str) -> int:
        """Begin a text: the next position."""
        table = self.prompts[f"prompt.{prompt}"].astype(np.int64)
        table = table << self.prompts[f"prompt.{prompt}.shift"].astype(np.int64)
        for layer, rows in zip(self.layers, table, strict=True):
            layer.start(rows.astype(np.float64))
        return int(table.shape[2])

    def counts(self, token: int, position: int) -> list[int]:
        """Counts of the token that follows ``token``, which stands at ``position``."""
        x = np.rint((self.embedding.weight[token] * self.embedding.scale[token]) * 2.0**16)
        for layer in self.layers:
            y = layer.qkv(normalised(x, layer.attention_gain))
            x = updated(x, layer.out(layer.attend(y, self.cos[position], self.sin[position], self.exp)))
            gate, up = np.split(layer.gate_up(normalised(x, layer.mlp_gain)), 2)
            index = np.clip(np.rint(1024 * gate), -24576, 24576).astype(np.int64)
            x = updated(x, layer.down((gate * self.sigmoid[index + 24576]) * up))
        logits = np.rint(256 * self.embedding(normalised(x, self.final_gain)))
        counts: list[int] = self.count_table[np.minimum(logits.max() - logits, 7680).astype(int)].tolist()
        return counts


def count_table() -> Integers:
    """``1 + round(2^40 exp(-k / 256))`` for k = 0 .. 7679, then the 1 of all that are farther away."""
    with localcontext() as context:
        context.prec = 50
        rounded = [int((2**40 * (Decimal(-k) / 256).exp()).to_integral_value()) for k in range(7680)]
    return np.array([*(1 + n for n in rounded), 1], dtype=np.int64)


def token_bytes(tokenizer: Path) -> list[bytes]:
    """Bytes of each token. In the file, printable Latin-1 stands for itself, other bytes for U+0100 and on, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in plain]
    meaning = {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(other)}
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    names = {number: name for name, number in vocabulary.items()}
    return [b"" if n <= 16 else bytes(meaning[c] for c in names[n]) for n in range(len(names))]


def read_exact(stream: Stream, model: LanguageModel) -> str:
    """A text of the coder ``exact-lm``, whose symbol has been read."""
    if stream.choice((2, 240, *(1,) * 14)) != 1:
        raise ValueError("unknown text model")
    prompt = PROMPTS[stream.choice((152, 84, 8, 8, 1, 1, 1, 1))]
    if stream.choice((252, 4)):
        raise ValueError("damaged: the picture as context is reserved")
    end = 0 if stream.choice((252, 4)) else 198
    position, token, text = model.start(prompt), 0, b""
    for count in itertools.count():
        token = stream.choice(model.counts(token, position + count))
        if token == end:
            break
        if token <= 16 or count == MAX_TOKENS:
            raise ValueError("damaged: a control token, or no end")
        text += model.token_bytes[token]
    if not text.startswith(b" "):
        raise ValueError("damaged: no space in front")
    return text[1:].decode("utf-8")


# --- raw and static ---------------------------------------------------------------------------------------------------


def read_raw(stream: Stream) -> str:
    """A text of the coder ``raw``, whose symbol has been read."""
    digits = stream.choice((8, 8, 16, 24, 32, 40, 40, 32, 20, 12, 8, 4, 4, 2, 2, 2, 1, 1))
    size = digits if digits < 2 else (1 << digits - 1) + stream.equal(1 << digits - 1)
    if size > MAX_BYTES:
        raise ValueError("damaged: too long")
    return bytes(stream.equal(256) for _ in range(size)).decode("utf-8")


class Table:
    """Counts of some tokens."""

    def __init__(self, counts: dict[int, int], share: int = 0) -> None:
        self.counts, self.share = counts, share

    def sum(self) -> int:
        """Of all counts."""
        return sum(self.counts.values())

    def before(self, x: int) -> int:
        """The sum of the counts of tokens before x."""
        return sum(count for token, count in self.counts.items() if token < x)

    def gain(self, token: int) -> None:
        """One more; all are halved where the sum exceeds 1,024."""
        self.counts[token] = self.counts.get(token, 0) + 1
        if self.sum() > 1024:
            self.counts = {t: count // 2 for t, count in self.counts.items() if count > 1}


def level_count(level: int) -> int:
    """1, 2, 3, 4, 6, 8, 12, ..."""
    return 1 if level == 0 else (2 + (level - 1) % 2) << (level - 1) // 2


class StaticModel:
    """The file ``static_model.bin``."""

    def __init__(self, path: Path) -> None:
        self._data = zlib.decompress(path.read_bytes())
        size = self._numbers(1)[0]
        lengths = self._octets(size)
        strings = iter(self._octets(sum(lengths)))
        self.strings = [bytes(itertools.islice(strings, n)) for n in lengths]
        self.end = lengths.index(0)
        self.base = Table({t: level_count(level) for t, level in enumerate(self._octets(size))})
        firsts = [(q,) for q, one in enumerate(self._octets(size)) if one]
        self.learnt: dict[tuple[int, ...], Table] = dict(
            zip(firsts, self._contexts(len(firsts)), strict=True)
        )
        followers = self._numbers(size)
        seconds = self._steps(followers)
        pairs = [(p, q) for p, row in enumerate(seconds) for q in row]
        self.learnt.update(zip(pairs, self._contexts(len(pairs)), strict=True))
        if self._data:
            raise ValueError("the static model's file is too long")

    def _octets(self, n: int) -> bytes:
        head, self._data = self._data[:n], self._data[n:]
        return head

    def _numbers(self, n: int) -> list[int]:
        low, high = self._octets(n), self._octets(n)
        return [a + 256 * b for a, b in zip(low, high, strict=True)]

    def _steps(self, sizes: Sequence[int]) -> list[list[int]]:
        steps = iter(self._numbers(sum(sizes)))
        return [
            [total + i for i, total in enumerate(itertools.accumulate(itertools.islice(steps, n)))]
            for n in sizes
        ]

    def _contexts(self, n: int) -> Iterator[Table]:
        shares, sizes = self._octets(n), self._numbers(n)
        rows = self._steps(sizes)
        levels = iter(self._octets(sum(sizes)))
        for share, row in zip(shares, rows, strict=True):
            yield Table({token: level_count(next(levels)) for token in row}, share)


def read_static(stream: Stream, model: StaticModel) -> str:
    """A text of the coder ``static``, whose symbol has been read."""
    caches: dict[tuple[int, ...], Table] = {}
    p = q = model.end
    text, size = b"", len(model.strings)
    while True:
        contexts: list[tuple[int, ...]] = [(), (q,), (p, q)]
        tables = [(t, (1 << 27) * t.share // t.sum()) for c in contexts[1:] if (t := model.learnt.get(c))]
        for c, (factor, more) in zip(contexts, ((5 << 28, 120), (3 << 30, 12), (7 << 29, 3)), strict=True):
            if c in caches:
                tables.append((caches[c], factor // (caches[c].sum() + more)))
        token = stream.symbol(size, partial(begin, model.base, tables))
        if token == model.end:
            return text.decode("utf-8")
        text += model.strings[token]
        if len(text) > MAX_BYTES:
            raise ValueError("damaged: too long")
        for c in contexts:
            caches.setdefault(c, Table({})).gain(token)
        p, q = q, token


def begin(base: Table, tables: Sequence[tuple[Table, int]], x: int) -> int:
    """``B(x) + x``: where token x begins."""
    value = (1 << 32) * base.before(x) // base.sum()
    for table, weight in tables:
        value = weight * table.before(x) + (((1 << 32) - weight * table.sum()) * value >> 32)
    return value + x


# --- sections ---------------------------------------------------------------------------------------------------------


def read_text(section: bytes, static: StaticModel, language: LanguageModel | None = None) -> str:
    """The text of a text section."""
    stream = Stream(section)
    coder = stream.choice((224, 16, 8, 4, 1, 1, 1, 1))
    if coder == 0 and language is not None:
        return read_exact(stream, language)
    if coder == 1:
        return read_static(stream, static)
    if coder == 3:
        return read_raw(stream)
    raise ValueError(f"coder {coder} cannot be read here")


def read_mask(stream: Stream, table: bytes) -> npt.NDArray[np.bool_]:
    """Side and mask of one object; ``table`` is the file ``mask_counts.bin``."""
    number = stream.choice((13, 1, 1, 1))
    side = 8 << number
    if stream.choice((31, 1)):
        return np.array([stream.equal(2) for _ in range(side * side)], dtype=np.bool_).reshape(side, side)
    levels = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    counts = [[levels[b >> 4], levels[b & 15]] for b in table[1024 * number : 1024 * (number + 1)]]
    # Bits 0 to 9 of the context as (rows up, columns right).
    known = ((0, -1), (1, -1), (1, 0), (1, 1), (0, -2), (2, 0), (1, 2), (1, -2), (2, 1), (2, -1))
    padded = np.zeros((side + 2, side + 4), dtype=np.int64)
    for y, x in itertools.product(range(side), repeat=2):
        context = sum(int(padded[y + 2 - up, x + 2 + right]) << i for i, (up, right) in enumerate(known))
        value = stream.choice(counts[context])
        counts[context][value] += 1
        padded[y + 2, x + 2] = value
    return padded[2:, 2:-2].astype(np.bool_)


def read_objects(
    section: bytes, static: StaticModel, table: bytes, language: LanguageModel | None = None
) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Name, detail and mask of each object of an objects section."""
    head = [*itertools.takewhile(lambda byte: byte > 127, section)]
    start = len(head) + 1
    length = sum((byte & 127) << 7 * i for i, byte in enumerate(section[:start]))
    if start > 5 or start + length > len(section):
        raise ValueError("damaged: the section is cut off")
    text = read_text(section[start : start + length], static, language)
    stream = Stream(section[start + length :])
    parts = [part.partition(": ") for part in text.split("; ")]
    if not text or len(parts) > 8:
        raise ValueError("damaged: no objects, or too many")
    return [(name, detail, read_mask(stream, table)) for name, _, detail in parts]
