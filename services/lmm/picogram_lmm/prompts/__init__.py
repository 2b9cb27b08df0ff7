# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What vision-language models are asked, as versioned data: one TOML file per question.

A change of words is a new ``version``; results of a benchmark name ``label``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Question:
    """``text`` may hold ``{name}``; ``max_tokens`` bounds the answer."""

    id: str
    version: int
    text: str
    max_tokens: int


@cache
def question(name: str) -> Question:
    """The question of that name; ValueError if there is none."""
    file = resources.files(__name__) / f"{name}.toml"
    if not file.is_file():
        raise ValueError(f"there is no prompt {name!r}")
    return Question(**tomllib.loads(file.read_text(encoding="utf-8")))
