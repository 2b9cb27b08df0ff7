# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Texts to sections and back. A section is one range-coded stream; its first symbol says which coder wrote the rest.

    text ──┬── exact-lm    SmolLM2 in exact integers, with soft prompts
           ├── vllm-float  tokens under any model that vLLM serves; same deployment on both sides
           ├── static      integer counts learnt from captions; needs no torch
           └── raw         UTF-8
           the shortest that decodes back ── section

Nothing here checks for damage: the container's checksum does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from picogram.errors import CorruptBitstream, ModelMissing, PicogramError, SelfCheckFailed, UsageError
from picogram.text import raw, static
from picogram.text.fixed import fixed_symbol, read_fixed
from picogram.text.raw import MAX_CHARACTERS
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

if TYPE_CHECKING:
    from picogram.text.lm.lm_coder import Candidate, LMCoder

CODERS = ("exact-lm", "static", "vllm-float", "raw")
PULL_COMMAND = "picogram models pull text"
_CODER_COUNTS = (224, 16, 8, 4, 1, 1, 1, 1)
_ALL_KINDS_UP_TO = 160
"""Texts of at most this many characters are tried with every prompt, longer ones not with that of short captions."""


class FloatCoder(Protocol):
    """The coder ``vllm-float``: one deployment's engine."""

    def write(self, encoders: Sequence[WideRangeEncoder], texts: Sequence[str]) -> None:
        """Append one text to each stream."""

    def read(self, decoders: Sequence[WideRangeDecoder]) -> list[str | PicogramError]:
        """The text of each stream, which stands behind the coder's id, or what is wrong with it."""


@dataclass(frozen=True)
class CodedText:
    """A section and how it came about; ``ideal_bits`` is the code length before whole bytes, None where unknown."""

    section: bytes
    coder: str
    kind: str = ""
    ideal_bits: float | None = None


class TextCoder:
    """Codes texts with whatever coders it is given; ``static`` and ``raw`` are always there."""

    def __init__(self, lm: LMCoder | None = None, floats: FloatCoder | None = None) -> None:
        self.lm, self.floats = lm, floats

    def encode(
        self,
        texts: Sequence[str],
        coders: Sequence[str] = CODERS,
        kinds: Sequence[str] | None = None,
    ) -> list[CodedText]:
        """A section for each text, the shortest among ``coders``, each checked by decoding it.

        ``kinds``: soft prompts to try; by default those that suit the length. Raises UsageError for texts over
        MAX_CHARACTERS or with lone surrogates, and for unknown coders; ModelMissing if no coder is left.
        """
        for text in texts:
            check_text(text)
        if unknown := set(coders) - set(CODERS):
            raise UsageError(f"unknown text coder {sorted(unknown)[0]!r}; there are {', '.join(CODERS)}")
        options: list[list[CodedText]] = [[] for _ in texts]
        if self.lm and "exact-lm" in coders:
            self._add_exact(options, texts, kinds)
        if self.floats and "vllm-float" in coders:
            self._add_float(options, texts, self.floats)
        for found, text in zip(options, texts, strict=True):
            found += [_simple(name, text) for name in ("static", "raw") if name in coders]
            if not found:
                raise ModelMissing(f"none of {', '.join(coders)} can code this text: run `{PULL_COMMAND}`")
        chosen = [min(found, key=lambda c: len(c.section)) for found in options]
        self._check(chosen, texts)
        return chosen

    def decode(self, sections: Sequence[bytes]) -> list[str | PicogramError]:
        """The text of each section, or the error that says why there is none.

        Errors: CorruptBitstream, UnknownModel, ModelMissing.
        """
        found: list[str | PicogramError | None] = [None] * len(sections)
        waiting: dict[str, list[tuple[int, WideRangeDecoder]]] = {"exact-lm": [], "vllm-float": []}
        for index, section in enumerate(sections):
            try:
                decoder = WideRangeDecoder(section)
                coder = _read_coder(decoder)
                if coder in waiting:
                    waiting[coder].append((index, decoder))
                else:
                    found[index] = (raw if coder == "raw" else static).read(decoder)
            except PicogramError as error:
                found[index] = error
        self._read_exact(waiting["exact-lm"], found)
        self._read_float(waiting["vllm-float"], found)
        return [text if text is not None else CorruptBitstream("no text") for text in found]

    def _add_exact(
        self,
        options: list[list[CodedText]],
        texts: Sequence[str],
        kinds: Sequence[str] | None,
    ) -> None:
        assert self.lm is not None  # noqa: S101 - checked by the caller
        wanted = [[k for k in kinds or _kinds(text) if k in self.lm.prompts] for text in texts]
        for found, candidates in zip(options, self.lm.candidates(texts, wanted), strict=True):
            coded = [CodedText(exact_section(c), "exact-lm", c.mode.kind, c.bits) for c in candidates]
            if coded:
                found.append(min(coded, key=lambda c: (len(c.section), c.ideal_bits)))

    def _add_float(self, options: list[list[CodedText]], texts: Sequence[str], floats: FloatCoder) -> None:
        encoders = [_started("vllm-float") for _ in texts]
        floats.write(encoders, texts)
        for found, encoder in zip(options, encoders, strict=True):
            found.append(CodedText(encoder.finish(), "vllm-float"))

    def _read_exact(
        self, waiting: list[tuple[int, WideRangeDecoder]], found: list[str | PicogramError | None]
    ) -> None:
        if waiting and self.lm is None:
            for index, _ in waiting:
                found[index] = ModelMissing(f"the words need the language model: run `{PULL_COMMAND}`")
        elif waiting and self.lm is not None:
            texts = self.lm.read([d for _, d in waiting])
            for (index, _), text in zip(waiting, texts, strict=True):
                found[index] = text

    def _read_float(
        self, waiting: list[tuple[int, WideRangeDecoder]], found: list[str | PicogramError | None]
    ) -> None:
        if waiting and self.floats is None:
            for index, _ in waiting:
                found[index] = ModelMissing("the words need the vLLM deployment that wrote them")
        elif waiting and self.floats is not None:
            for (index, _), text in zip(waiting, self.floats.read([d for _, d in waiting]), strict=True):
                found[index] = text

    def _check(self, chosen: list[CodedText], texts: Sequence[str]) -> None:
        for text, back in zip(texts, self.decode([c.section for c in chosen]), strict=True):
            if back != text:
                raise SelfCheckFailed("a coded text does not decode to itself on this machine")


def check_text(text: str) -> None:
    """UsageError unless the text can be coded."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the text has {len(text)} characters, more than the limit of {MAX_CHARACTERS}")
    raw.text_bytes(text)


def exact_section(candidate: Candidate) -> bytes:
    """The section of one way of writing a text with the language model."""
    encoder = _started("exact-lm")
    for part in candidate.symbols:
        encoder.encode(*part)
    return encoder.finish()


def coder_of(section: bytes) -> str:
    """Which coder wrote a section; CorruptBitstream if none did."""
    return _read_coder(WideRangeDecoder(section))


def _kinds(text: str) -> tuple[str, ...]:
    return ("short", "dense", "plain") if len(text) <= _ALL_KINDS_UP_TO else ("dense", "plain")


def _started(coder: str) -> WideRangeEncoder:
    encoder = WideRangeEncoder()
    encoder.encode(*fixed_symbol(_CODER_COUNTS, CODERS.index(coder)))
    return encoder


def _read_coder(decoder: WideRangeDecoder) -> str:
    coder = read_fixed(decoder, _CODER_COUNTS)
    if coder >= len(CODERS):
        raise CorruptBitstream(f"the words were written by coder {coder}, which is not known here")
    return CODERS[coder]


def _simple(coder: str, text: str) -> CodedText:
    encoder = _started(coder)
    (raw if coder == "raw" else static).write(encoder, text)
    return CodedText(encoder.finish(), coder)
