# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The words of a deployment on vLLM: which models, as the settings say. Needs vLLM, unlike ``loading``."""

from __future__ import annotations

from typing import Any

from picogram.models.store import text_available
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder
from picogram.text.lm.loading_lm import load_lm_coder
from picogram_lmm.lmm_settings import LmmSettings
from picogram_lmm.vllm_captioner import VllmCaptioner
from picogram_lmm.vllm_engine import prepare_process


def served_words(settings: LmmSettings) -> Words:
    """Coder and captioner. The exact model runs on vLLM's CPU engine only; on a GPU the library's own codes exactly.

    Raises ModelMissing or ModelDamaged for the text model, and ModelError if vLLM cannot load one.
    """
    prepare_process()
    from vllm.platforms import current_platform

    options: dict[str, Any] = {"revision": settings.captioner_revision} if settings.captioner_revision else {}
    if settings.captioner_memory is not None:
        options["gpu_memory_utilization"] = settings.captioner_memory
    if settings.coder == "exact" and current_platform.is_cpu():
        from picogram_lmm.vllm_words import vllm_words

        return vllm_words(settings.captioner, settings.rows, **options)
    # Before the captioner's engine, which takes the memory that is left.
    coder = _float_coder(settings) if settings.coder == "float" else TextCoder(lm=load_lm_coder())
    return Words(coder, VllmCaptioner(settings.captioner, **options) if settings.captioner else None)


def _float_coder(settings: LmmSettings) -> TextCoder:
    """With the library's own exact coder where its model is pulled, for the files of others."""
    from picogram_lmm.float_coder import VllmFloatCoder

    floats = VllmFloatCoder(str(settings.float_model), settings.float_revision, rows=settings.rows)
    return TextCoder(lm=load_lm_coder() if text_available() else None, floats=floats)
