# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Texts as arithmetic-coded tokens under the exact language model.

    [soft prompt | start token | tokens ...] ── exact logits ── integer counts ── range coder
                                each token, then an end token

Writing runs every candidate (kind of prompt) through one batched forward pass and keeps the
shortest. Reading steps token by token, for all texts of a batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from picogram.errors import CorruptBitstream, PicogramError
from picogram.text.fixed import Symbol
from picogram.text.lm.distribution import cumulative, symbol, token_at
from picogram.text.lm.exact_lm import MAX_POSITIONS, Cache, ExactLM
from picogram.text.lm.mode import MODEL_SYMBOL, Mode, read_mode
from picogram.text.lm.tokens import END_OF_LINE, END_OF_TEXT, LMTokenizer
from picogram.text.token_rangecoder import WideRangeDecoder

MAX_TOKENS = 768
"""Longest text in tokens; longer ones are left to other coders."""
BATCH = 16
_LOGIT_ROWS = 32


@dataclass(frozen=True)
class Candidate:
    """One way of writing a text: the symbols for the range coder and their ideal length in bits."""

    mode: Mode
    symbols: tuple[Symbol, ...]

    @property
    def bits(self) -> float:
        """Ideal code length, the mode included."""
        return sum(math.log2(total / frequency) for _, frequency, total in self.symbols)


@dataclass
class _TextReading:
    """A text on its way out of a file."""

    decoder: WideRangeDecoder
    mode: Mode
    ids: list[int] = field(default_factory=list)
    error: PicogramError | None = None


class LMCoder:
    """The coder ``exact-lm``: a model, its vocabulary and its soft prompts.

    Another engine overrides ``write_rows`` and ``read_rows``; ``batch`` is how many texts they get at once.
    """

    batch = BATCH

    def __init__(self, model: ExactLM, tokens: LMTokenizer, prompts: dict[str, Tensor]) -> None:
        """``prompts``: by kind, integers ``[layers, 2, n, kv * d]`` of keys and values."""
        self.model, self.tokens, self.prompts = model, tokens, prompts

    def candidates(self, texts: Sequence[str], kinds: Sequence[Sequence[str]]) -> list[list[Candidate]]:
        """For each text, a candidate per kind in ``kinds``; a text of more than MAX_TOKENS tokens has none."""
        rows: list[tuple[int, Mode, list[int]]] = []
        for index, text in enumerate(texts):
            ids = self.tokens.split(text)
            if len(ids) > MAX_TOKENS:
                continue
            multiline = END_OF_LINE in ids
            ids.append(END_OF_TEXT if multiline else END_OF_LINE)
            rows += [(index, Mode(kind, multiline), ids) for kind in kinds[index]]
        found: list[list[Candidate]] = [[] for _ in texts]
        rows.sort(key=lambda row: len(row[2]))
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            written = self.write_rows([mode for _, mode, _ in part], [ids for _, _, ids in part])
            for (index, mode, _), symbols in zip(part, written, strict=True):
                found[index].append(Candidate(mode, (MODEL_SYMBOL, *mode.symbols(), *symbols)))
        return found

    def read(
        self, decoders: Sequence[WideRangeDecoder], stop: Callable[[], bool] = lambda: False
    ) -> list[str | PicogramError]:
        """The texts of streams that stand behind the coder's id; a stream that makes no sense gives an error instead.

        ``stop`` is asked between steps.
        """
        readings: list[_TextReading | PicogramError] = []
        for decoder in decoders:
            try:
                readings.append(_TextReading(decoder, read_mode(decoder, self.prompts)))
            except PicogramError as error:
                readings.append(error)
        alive = [r for r in readings if isinstance(r, _TextReading)]
        for start in range(0, len(alive), self.batch):
            self.read_rows(alive[start : start + self.batch], stop)
        return [r if isinstance(r, PicogramError) else self._text(r) for r in readings]

    def _text(self, reading: _TextReading) -> str | PicogramError:
        try:
            return reading.error or self.tokens.join(reading.ids)
        except PicogramError as error:
            return error

    def start(self, modes: Sequence[Mode], room: int) -> Cache:
        """A cache with each row's soft prompt in it, ready for the start token."""
        longest = max(self.prompts[m.kind].shape[2] for m in modes)
        cache = Cache(self.model.config, len(modes), min(MAX_POSITIONS, longest + 1 + room))
        for row, mode in enumerate(modes):
            cache.preset(row, self.prompts[mode.kind])
        return cache

    def write_rows(self, modes: list[Mode], ids_of: list[list[int]]) -> Iterable[tuple[Symbol, ...]]:
        """The symbols of each row's tokens, the end token included."""
        longest = max(len(ids) for ids in ids_of)
        cache = self.start(modes, longest)
        inputs = torch.zeros(len(modes), longest, dtype=torch.int64)
        for row, ids in enumerate(ids_of):
            inputs[row, 1 : len(ids)] = torch.tensor(ids[:-1])
        counts = torch.tensor([len(ids) for ids in ids_of])
        hidden = self.model.forward(self.model.embed(inputs), cache, counts)
        for row, ids in enumerate(ids_of):
            symbols: list[Symbol] = []
            for start in range(0, len(ids), _LOGIT_ROWS):
                part = ids[start : start + _LOGIT_ROWS]
                cumulated = cumulative(self.model.logits(hidden[row, start : start + len(part)]).numpy())
                symbols += [symbol(line, token) for line, token in zip(cumulated, part, strict=True)]
            yield tuple(symbols)

    def read_rows(self, readings: list[_TextReading], stop: Callable[[], bool]) -> None:
        """Fill in the tokens of ``readings``, one step at a time for all."""
        cache = self.start([r.mode for r in readings], 48)
        alive, last = list(readings), [END_OF_TEXT] * len(readings)
        while alive and not stop():
            x = self.model.embed(torch.tensor(last)[:, None])
            cumulated = cumulative(self.model.logits(self.model.forward(x, cache)[:, 0]).numpy())
            keep, last = [], []
            for row, reading in enumerate(alive):
                token = token_at(cumulated[row], reading.decoder.target(int(cumulated[row][-1])))
                reading.decoder.advance(*symbol(cumulated[row], token))
                if token == reading.mode.end:
                    continue
                reading.ids.append(token)
                if len(reading.ids) > MAX_TOKENS:
                    reading.error = CorruptBitstream("the coded words do not end")
                    continue
                keep.append(row)
                last.append(token)
            if len(keep) < len(alive):
                alive = [alive[row] for row in keep]
                cache.keep(torch.tensor(keep, dtype=torch.int64))
