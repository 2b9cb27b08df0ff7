# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One engine per run: it takes seconds to start and stays until the process ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_lm

from picogram.text.lm.tokens import LMTokenizer

if TYPE_CHECKING:
    from picogram.text.lm.lm_coder import LMCoder
    from picogram_lmm.exact_coder import VllmLMCoder

PROMPTS = {
    "short": tiny_lm.random_prompt(7, 1),
    "dense": tiny_lm.random_prompt(12, 2),
    "plain": tiny_lm.random_prompt(0, 3),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lm")


@pytest.fixture(scope="session")
def vllm_coder(folder: Path) -> VllmLMCoder:
    """The tiny model in vLLM: sixteen rows a step, 20 pages of 128 positions."""
    from picogram_lmm.exact_coder import VllmLMCoder

    weights = tiny_lm.write_weights(folder / "lm.safetensors")
    tokens = LMTokenizer(tiny_lm.write_tokenizer(folder / "tokenizer.json"))
    return VllmLMCoder(weights, tokens, PROMPTS, tiny_lm.CONFIG, cache_bytes=4 << 20)


@pytest.fixture(scope="session")
def torch_coder(vllm_coder: VllmLMCoder) -> LMCoder:
    """The same model in plain torch, from weights of its own, float32 kernel."""
    from picogram.text.lm.exact_lm import ExactLM
    from picogram.text.lm.lm_coder import LMCoder

    model = ExactLM(tiny_lm.random_weights(), tiny_lm.CONFIG, kernel="float32")
    return LMCoder(model, vllm_coder.tokens, PROMPTS)
