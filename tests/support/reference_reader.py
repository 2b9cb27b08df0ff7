# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A reader of version-1 files written from docs/bitstream.md alone: Python integers and NumPy int64, no shared code."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

DOCUMENT = Path(__file__).parents[2] / "docs" / "bitstream.md"
A = 65536


def crc16(data: bytes) -> int:
    """Bit by bit, as the table in docs/bitstream.md says it."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x1021 if value & 0x8000 else 0)) & 0xFFFF
    return value


def layout_table() -> list[dict[str, str]]:
    """The rows of the table under "Layout"."""
    text = DOCUMENT.read_text().split("## Layout")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in lines[0].strip("|").split("|")]
    return [
        dict(zip(names, (c.strip() for c in line.strip("|").split("|")), strict=True)) for line in lines[2:]
    ]


def parse_by_table(data: bytes) -> dict[str, Any]:
    """Fields of a file by name, read as the table says."""
    fields: dict[str, Any] = {}
    rows = layout_table()
    bit, start = 0, 0
    for number, row in enumerate(rows):
        name, coding, condition = row["field"], row["coding"], row["present if"]
        words = bool(fields.get("has_caption") or fields.get("has_objects"))
        if not fields_present(condition, fields | {"words": words}):
            continue
        if match := re.fullmatch(r"(\d) bits?", coding):
            width = int(match[1])
            fields[name] = data[bit // 8] >> (8 - bit % 8 - width) & (1 << width) - 1
            bit += width
            start = bit // 8
        elif coding == "varint":
            value = shift = 0
            while True:
                byte = data[start]
                value |= (byte & 127) << shift
                shift, start = shift + 7, start + 1
                if byte < 128:
                    break
            fields[name] = value
        elif match := re.fullmatch(r"(\d) bytes", coding):
            fields[name] = data[start : start + int(match[1])]
            start += int(match[1])
        else:
            length = fields.get(f"{name}_length")
            if length is None:  # takes what no other field takes
                later = sum(fields.get(f"{r['field']}_length", 0) for r in rows[number + 1 :])
                length = len(data) - 4 - later - start
            fields[name] = data[start : start + length]
            start += length
    assert start == len(data)
    if "crc" in fields:
        assert int.from_bytes(fields["crc"], "little") == zlib.crc32(data[:-4])
    else:
        words_start = len(data) - 4 - fields.get("caption_length", 0) - fields.get("objects_length", 0)
        halves = {"picture_check": data[:words_start], "words_check": data[words_start:-4]}
        for name, half in halves.items():
            assert int.from_bytes(fields[name], "little") == crc16(half)
    return fields


def fields_present(condition: str, fields: dict[str, Any]) -> bool:
    """Whether a row of the table applies: "always", a field's name, or "not" and a name."""
    negated = condition.startswith("not ")
    return condition == "always" or bool(fields[condition.removeprefix("not ")]) != negated


class Words:
    """The range decoder, in Python integers."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.low, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        chunk = self.data[self.at : self.at + 4].ljust(4, b"\0")
        self.at += 4
        return int.from_bytes(chunk, "big")

    def symbol(self, cumulative: list[int]) -> int:
        scale = self.range >> 24
        target = (self.point - self.low) % 2**64 // scale
        assert target < 2**24
        s = int(np.searchsorted(cumulative, target, side="right")) - 1
        self.low = (self.low + scale * cumulative[s]) % 2**64
        self.range = scale * (cumulative[s + 1] - cumulative[s])
        if self.range < 2**32:
            self.low = (self.low << 32) % 2**64
            self.range <<= 32
            self.point = (self.point << 32) % 2**64 | self.word()
        return s


class Reader:
    """Latents of files, as integers in 1/256 steps."""

    def __init__(self, weights: Path, slices: tuple[int, ...] = (16, 16, 32, 64)) -> None:
        tensors = load_file(weights)
        self.t = {k[6:]: v.astype(np.int64) for k, v in tensors.items() if k.startswith("prior.")}
        self.slices = slices
        self.reach = self.t["table_reach"].tolist()
        self.cumulative, start = [], 0
        for reach in self.reach:
            counts = self.t["table_counts"][start : start + 2 * reach + 1].tolist()
            start += 2 * reach + 1
            self.cumulative.append([0, *np.cumsum(counts).tolist()])

    def layer(self, name: str, rows: np.ndarray) -> np.ndarray:
        shift = int(self.t[f"{name}.shift"][0])
        total = rows @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]
        return np.asarray(np.clip((total + 2**shift // 2) // 2**shift, -A, A))

    def layer3x3(self, name: str, field: np.ndarray) -> np.ndarray:
        padded = np.pad(field, ((1, 1), (1, 1), (0, 0)))
        h, w, _ = field.shape
        neighbours = [padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return self.layer(name, np.concatenate(neighbours, 2))

    def at_rate(self, name: str, q: int) -> np.ndarray:
        table: np.ndarray = self.t[name]
        row, fraction = divmod(q * (len(table) - 1), 255)
        if not fraction:
            return np.asarray(table[row])
        return np.asarray((2 * (table[row] * (255 - fraction) + table[row + 1] * fraction) + 255) // 510)

    def run(self, words: Words, index: np.ndarray) -> np.ndarray:
        flat, out = index.ravel(), np.zeros(index.size, np.int64)
        for i in range(64):
            if self.reach[i]:
                for element in np.flatnonzero(flat == i):
                    out[element] = words.symbol(self.cumulative[i]) - self.reach[i]
        return out.reshape(index.shape)

    def latent(self, data: bytes) -> np.ndarray:
        fields = parse_by_table(data)
        scale = 2 ** fields["halvings"]
        h, w = (ceil_div(ceil_div(fields[side], scale), 16) for side in ("height", "width"))
        q, words = fields["latent"][0], Words(fields["latent"][1:])
        hz, wz = ceil_div(h, 4), ceil_div(w, 4)
        index = np.clip((self.at_rate("hyper_index", q) + 128) // 256, 0, 63)
        index = np.broadcast_to(index, (hz * wz, len(index)))
        z = 256 * self.run(words, index) + self.at_rate("hyper_mean", q)
        f = np.maximum(depth_to_space(self.layer3x3("hyper_up", z.reshape(hz, wz, -1))), 0)
        f = depth_to_space(self.layer("hyper_last", f))[:h, :w]
        f = np.maximum(f + self.at_rate("rate_shift", q), 0)
        return self._slices(words, f, self.at_rate("index_base", q))

    def _slices(self, words: Words, features: np.ndarray, base: np.ndarray) -> np.ndarray:
        h, w, _ = features.shape
        y = np.zeros((h, w, sum(self.slices)), np.int64)
        row, col = np.mgrid[:h, :w]
        start = 0
        for k, size in enumerate(self.slices):
            for colour in (0, 1):
                where = (row + col) % 2 == colour
                net = f"nets.{2 * k + colour}"
                context = np.maximum(self.layer3x3(f"{net}.context", y[:, :, : start + size]), 0)
                mixed = self.layer(f"{net}.mix", np.concatenate([context, features], 2)[where])
                out = self.layer(f"{net}.head", np.maximum(mixed, 0))
                index = np.clip((out[:, size:] + base[start : start + size] + 128) // 256, 0, 63)
                y[where, start : start + size] = np.clip(256 * self.run(words, index) + out[:, :size], -A, A)
            start += size
        return y


def ceil_div(value: int, divisor: int) -> int:
    return (value + divisor - 1) // divisor


def depth_to_space(x: np.ndarray) -> np.ndarray:
    h, w, c = x.shape
    return x.reshape(h, w, c // 4, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2 * h, 2 * w, c // 4)
