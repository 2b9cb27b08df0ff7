# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The words of encoding and decoding, served by vLLM: ``LmmHandler(vllm_words("Qwen/Qwen2.5-VL-3B-Instruct"))``."""

from __future__ import annotations

from typing import Any

from picogram.models.store import text_model_file
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder
from picogram.text.lm.loading_lm import load_prompts, load_tokenizer
from picogram_lmm.exact_coder import VllmLMCoder
from picogram_lmm.vllm_captioner import VllmCaptioner
from picogram_lmm.vllm_engine import DEFAULT_ROWS


def vllm_words(captioner: str | None = None, rows: int = DEFAULT_ROWS, **options: Any) -> Words:
    """Texts coded by the exact model in vLLM, ``rows`` at a time; pictures described by the vision-language model named.

    Without a ``captioner`` the library's own describes. ``options`` go to ``VllmCaptioner``. Raises ModelMissing or
    ModelDamaged, with the command that helps, if the text model is not here, and ModelError if vLLM cannot load one.
    """
    lm = VllmLMCoder(text_model_file(), load_tokenizer(), load_prompts(), rows=rows)
    return Words(TextCoder(lm=lm), VllmCaptioner(captioner, **options) if captioner else None)
