# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny float model codes texts for its own deployment, and refuses the files of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sentences import CAPTIONS, HARD

from picogram.errors import UnknownModel
from picogram.text.coder import TextCoder

pytest.importorskip("vllm")

import tiny_hf

from picogram_lmm.float_coder import VllmFloatCoder

if TYPE_CHECKING:
    from collections.abc import Callable

FLOAT = ("vllm-float",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf.write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def start(model: Path) -> Callable[..., VllmFloatCoder]:
    def engine(**changes: Any) -> VllmFloatCoder:
        return VllmFloatCoder(str(model), max_model_len=400, kv_cache_memory_bytes=64 << 20, **changes)

    return engine


@pytest.fixture(scope="module")
def coder(start: Callable[..., VllmFloatCoder]) -> VllmFloatCoder:
    return start()


def test_24_captions_written_together_are_read_alone_and_the_reverse(coder: VllmFloatCoder) -> None:
    text_coder = TextCoder(floats=coder)
    together = [c.section for c in text_coder.encode(CAPTIONS, coders=FLOAT)]
    assert [text_coder.decode([section])[0] for section in together[:6]] == list(CAPTIONS[:6])
    alone = [text_coder.encode([text], coders=FLOAT)[0].section for text in CAPTIONS[:6]]
    assert alone == together[:6]
    assert text_coder.decode(together[::-1]) == list(CAPTIONS[::-1])


def test_texts_of_every_kind_survive(coder: VllmFloatCoder) -> None:
    texts = [*HARD, "long " * 200]
    sections = [c.section for c in TextCoder(floats=coder).encode(texts, coders=FLOAT)]
    assert TextCoder(floats=coder).decode(sections) == texts


def test_another_engine_refuses(coder: VllmFloatCoder, start: Callable[..., VllmFloatCoder]) -> None:
    section = TextCoder(floats=coder).encode(CAPTIONS[:1], coders=FLOAT)[0].section
    assert start().fingerprint == coder.fingerprint
    other = start(dtype="bfloat16")
    assert other.fingerprint != coder.fingerprint
    assert isinstance(TextCoder(floats=other).decode([section])[0], UnknownModel)
