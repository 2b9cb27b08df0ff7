# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a text coded by the language model says of itself first: model, kind of prompt, how it ends.

Each choice is a symbol with a fixed table of counts, so common choices cost a fraction of a bit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from picogram.errors import CorruptBitstream, UnknownModel
from picogram.text.fixed import Symbol, fixed_symbol, read_fixed
from picogram.text.lm.tokens import END_OF_LINE, END_OF_TEXT
from picogram.text.token_rangecoder import WideRangeDecoder

KINDS = ("short", "dense", "plain", "objects")
"""Short captions, dense descriptions, any text, lists of objects; places 4 to 7 of the table are free."""
TEXT_MODEL = 1
"""Id of the text model: language model, vocabulary and prompts together."""

_KIND_COUNTS = (152, 84, 8, 8, 1, 1, 1, 1)
_CONTEXT_COUNTS = (252, 4)
"""Whether the decoded picture is part of the prompt: reserved, always 0 in files of this text model."""
_END_COUNTS = (252, 4)
_MODEL_COUNTS = (2, 240, *[1] * 14)


MODEL_SYMBOL = fixed_symbol(_MODEL_COUNTS, TEXT_MODEL)


@dataclass(frozen=True)
class Mode:
    """``kind`` of prompt, whether newlines occur in the text."""

    kind: str
    multiline: bool = False

    @property
    def end(self) -> int:
        """The token that ends the text."""
        return END_OF_TEXT if self.multiline else END_OF_LINE

    def symbols(self) -> tuple[Symbol, ...]:
        """The mode as symbols of a range coder."""
        return (
            fixed_symbol(_KIND_COUNTS, KINDS.index(self.kind)),
            fixed_symbol(_CONTEXT_COUNTS, 0),
            fixed_symbol(_END_COUNTS, self.multiline),
        )


def read_mode(decoder: WideRangeDecoder, known: Collection[str]) -> Mode:
    """Model id and mode from a stream; UnknownModel or CorruptBitstream if they are not known here."""
    model = read_fixed(decoder, _MODEL_COUNTS)
    if model != TEXT_MODEL:
        raise UnknownModel(f"the words need text model {model}; installed: {TEXT_MODEL}")
    kind = read_fixed(decoder, _KIND_COUNTS)
    context, multiline = read_fixed(decoder, _CONTEXT_COUNTS), read_fixed(decoder, _END_COUNTS)
    name = KINDS[kind] if kind < len(KINDS) else str(kind)
    if context or name not in known:
        name += ".context" if context else ""
        raise CorruptBitstream(f"the words use prompt {name}, which text model {TEXT_MODEL} does not have")
    return Mode(name, bool(multiline))
