# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a vision-language model said, made fit to be a caption, or dropped: no caption is better than nonsense."""

from __future__ import annotations

import re
import unicodedata

MAX_CAPTION = 300
"""Characters."""
MAX_DETAIL = 80
MAX_NAME = 30
_QUOTES = "\"'\u201c\u201d\u2018\u2019`*"
_PREFIX = re.compile(r"^(?:caption|description|answer|assistant)\s*:\s*", re.IGNORECASE)
_LONGEST_LOOP = 8


def clean_caption(text: str, limit: int = MAX_CAPTION) -> str | None:
    """One line of at most ``limit`` characters, cut at the end of a sentence or else of a word.

    None if there is no letter in it or if it goes in circles.
    """
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    text = _PREFIX.sub("", " ".join(text.split()).strip(_QUOTES + " ")).strip(_QUOTES + " ")
    if not any(c.isalpha() for c in text) or loops(text):
        return None
    return _cut(text, limit)


def clean_detail(text: str) -> str:
    """A phrase about an object, without the semicolon that separates objects in a file; empty if there is none."""
    return (clean_caption(text.replace(";", ","), MAX_DETAIL) or "").rstrip(" .,:-")


def loops(text: str) -> bool:
    """Whether the same one to eight words come three times in a row, or few of many triples of words are new."""
    words = [w.strip(".,;:!?").lower() for w in text.split()]
    for length in range(1, _LONGEST_LOOP + 1):
        for at in range(len(words) - 3 * length + 1):
            first = words[at : at + length]
            if first == words[at + length : at + 2 * length] == words[at + 2 * length : at + 3 * length]:
                return True
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(triples) >= 12 and len(set(triples)) < 0.5 * len(triples)


def clean_name(text: str) -> str | None:
    """The name of an object: lower case, one to three words, no bullet or number before it. None if it is none."""
    name = re.sub(r"^[\s\-*•\d.)]+", "", text).strip(_QUOTES + " .,:;").lower()
    name = re.sub(r"^(?:an?|the)\s+", "", name)
    fits = (
        0 < len(name) <= MAX_NAME and len(name.split()) <= 3 and all(c.isalpha() or c in " -'" for c in name)
    )
    return name if fits else None


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[:limit]
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)", head)]
    if ends and ends[-1] >= limit // 3:
        return head[: ends[-1]]
    return head.rsplit(" ", 1)[0].rstrip(" ,;:-")
