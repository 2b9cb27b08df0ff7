# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Texts and tokens: a space is put in front, as words in running text have one; tokens are bytes, so any text has some.

Only the way back, from tokens to bytes, matters to a file. Which tokens a writer chooses is its own affair.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from picogram.errors import CorruptBitstream

END_OF_LINE = 198
"""The newline token: ends a text that has no newline in it."""
END_OF_TEXT = 0
"""Starts every text, and ends those with newlines."""
_LAST_CONTROL = 16
"""Ids up to this are control tokens and spell nothing."""


class LMTokenizer:
    """The vocabulary of the language model."""

    def __init__(self, path: Path) -> None:
        """``path``: a tokenizers JSON file."""
        self._tokenizer = Tokenizer.from_file(str(path))
        vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        alphabet = byte_alphabet()
        self.pieces: dict[int, bytes] = {
            token: bytes(alphabet[c] for c in piece)
            for piece, token in vocabulary.items()
            if token > _LAST_CONTROL and all(c in alphabet for c in piece)
        }

    def split(self, text: str) -> list[int]:
        """Token ids of a text, without an end."""
        ids: list[int] = self._tokenizer.encode(" " + text, add_special_tokens=False).ids
        return ids

    def join(self, ids: list[int]) -> str:
        """The text of token ids; CorruptBitstream if they spell none."""
        try:
            text = b"".join(self.pieces[i] for i in ids).decode("utf-8")
        except (KeyError, UnicodeDecodeError) as error:
            raise CorruptBitstream("the coded words are not a text") from error
        if not text.startswith(" "):
            raise CorruptBitstream("the coded words do not start as a text does")
        return text[1:]


def byte_alphabet() -> dict[str, int]:
    """The characters that stand for the 256 bytes in byte-level BPE vocabularies (Radford et al., GPT-2, 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shown = {chr(b): b for b in printable}
    hidden = [b for b in range(256) if b not in printable]
    return shown | {chr(256 + n): b for n, b in enumerate(hidden)}
