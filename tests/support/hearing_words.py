# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words without a language model that hear captions and find places: by arithmetic, the same in every process."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.errors import UsageError
from picogram.latent.focus import Focus
from picogram.latent.guide import AdapterConfig
from picogram.semantics.words import Captioner, Words
from picogram.text.coder import TextCoder

NOWHERE = "nowhere"
"""The words that no picture shows."""


class HearingWords(Words):
    """``heard`` and ``placed`` are what it was asked for."""

    def __init__(self, captioner: Captioner) -> None:
        super().__init__(TextCoder(), captioner)
        self.heard: list[str] = []
        self.placed: list[str] = []

    def hear(self, captions: Sequence[str]) -> list[npt.NDArray[np.float16]]:
        self.heard += captions
        return [_states(caption) for caption in captions]

    def place(self, picture: Image.Image, words: str) -> Focus:
        self.placed.append(words)
        if words == NOWHERE:
            raise UsageError("the picture shows no such thing")
        noise = np.random.default_rng(zlib.crc32(words.encode())).random((10, 10), np.float32)
        return Focus.of(np.where(noise > 0.6, noise, 0))


def _states(caption: str) -> npt.NDArray[np.float16]:
    generator = np.random.default_rng(zlib.crc32(caption.encode()))
    shape = len(caption.split()) + 1, AdapterConfig().text_width
    return generator.standard_normal(shape, np.float32).astype(np.float16)
