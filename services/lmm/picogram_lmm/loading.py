# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The language-model worker's models: settings come in, a warm handler comes out."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from PIL import Image

from picogram.errors import ModelError, ModelMissing
from picogram.semantics.description import Description
from picogram.semantics.words import Words, default_words
from picogram_lmm.lmm_handler import LmmHandler
from picogram_lmm.lmm_settings import LmmSettings

logger = structlog.get_logger("picogram.lmm")


def load_handler(settings: LmmSettings) -> LmmHandler:
    """The handler, its models loaded.

    Raises ModelMissing that names what is not pulled: files would differ from those of workers that have it. With
    ``models`` pulled the embedded engine does without, as the embedded server does: it says so, and texts take more
    bytes. Raises ModelError where vLLM cannot load what the settings name.
    """
    if settings.engine == "vllm":
        from picogram_lmm.serving import served_words

        words = served_words(settings)
        if problem := _code_something(words):
            logger.warning("working without a model", problem=problem)
        _describe_something(words)
        return LmmHandler(words)
    words = default_words()
    problems = [_problem(each, words) for each in (_code_something, _describe_something, _hear_something)]
    lacking = [problem for problem in problems if problem]
    if lacking and settings.models == "all":
        raise ModelMissing("; ".join(dict.fromkeys(lacking)))
    for problem in lacking:
        logger.warning("working without a model", problem=problem)
    return LmmHandler(words)


def _problem(warm_up: Callable[[Words], str], words: Words) -> str:
    """Empty, or which model is not there."""
    try:
        return warm_up(words)
    except ModelError as error:
        return str(error)


def _code_something(words: Words) -> str:
    """Empty, or which model is not there: texts can be coded without."""
    return "; ".join(words.code([Description("a photo")])[0].warnings)


def _describe_something(words: Words) -> str:
    words.describe([Image.new("RGB", (64, 64), "gray")])
    return ""


def _hear_something(words: Words) -> str:
    words.hear(["a photo"])
    return ""
