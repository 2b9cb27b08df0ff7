# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The language-model worker's models: settings come in, a warm handler comes out."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from PIL import Image

from picogram.errors import ModelError
from picogram.semantics.description import Description
from picogram.semantics.words import Words, default_words
from picogram_lmm.lmm_handler import LmmHandler
from picogram_lmm.lmm_settings import LmmSettings

logger = structlog.get_logger("picogram.lmm")


def load_handler(settings: LmmSettings) -> LmmHandler:
    """The handler, its models loaded.

    The embedded engine does without models that are not pulled, as the embedded server does: it says so, and texts take
    more bytes. Raises ModelError where vLLM cannot load what the settings name, ModelMissing for the text model.
    """
    if settings.engine == "vllm":
        from picogram_lmm.serving import served_words

        words = served_words(settings)
        _code_something(words)
        _describe_something(words)
        return LmmHandler(words)
    words = default_words()
    for warm_up in (_code_something, _describe_something, _hear_something):
        _as_far_as_possible(warm_up, words)
    return LmmHandler(words)


def _as_far_as_possible(warm_up: Callable[[Words], None], words: Words) -> None:
    try:
        warm_up(words)
    except ModelError as error:
        logger.warning("working without a model", problem=str(error))


def _code_something(words: Words) -> None:
    for sections in words.code([Description("a photo")]):
        for warning in sections.warnings:
            logger.warning("working without a model", problem=warning)


def _describe_something(words: Words) -> None:
    words.describe([Image.new("RGB", (64, 64), "gray")])


def _hear_something(words: Words) -> None:
    words.hear(["a photo"])
