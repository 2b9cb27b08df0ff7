# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A text model put together: the language model from the cache, soft prompts from the package.

``text-N.safetensors`` holds, for each prompt, ``prompt.KIND`` ``[layers, 2, n, kv * d] int8`` and the power of two of
each channel, ``prompt.KIND.shift`` ``[layers, 2, 1, kv * d] uint8``.
"""

from __future__ import annotations

from functools import lru_cache

from safetensors.torch import load_file
from torch import Tensor

from picogram.models import shipped_manifest, shipped_weights
from picogram.models.store import text_model_file, tokenizer_file
from picogram.text.lm.exact_lm import ExactLM
from picogram.text.lm.lm_coder import LMCoder
from picogram.text.lm.mode import TEXT_MODEL
from picogram.text.lm.tokens import LMTokenizer

_PROMPT = "prompt."


def unpack_prompts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Soft prompts by kind, as ``LMCoder`` takes them: int64 ``[layers, 2, n, kv * d]``."""
    return {
        name.removeprefix(_PROMPT): value.long() << tensors[f"{name}.shift"].long()
        for name, value in tensors.items()
        if name.startswith(_PROMPT) and not name.endswith(".shift")
    }


def load_prompts() -> dict[str, Tensor]:
    """The soft prompts that ship. ModelMissing or ModelDamaged."""
    return unpack_prompts(load_file(shipped_weights(shipped_manifest(f"text-{TEXT_MODEL}"))))


@lru_cache(maxsize=1)
def load_exact_lm() -> ExactLM:
    """The language model, one per process. ModelMissing or ModelDamaged name the command that helps."""
    return ExactLM(load_file(text_model_file()))


@lru_cache(maxsize=1)
def load_tokenizer() -> LMTokenizer:
    """The vocabulary. Raises as ``load_exact_lm``."""
    return LMTokenizer(tokenizer_file())


@lru_cache(maxsize=1)
def load_lm_coder() -> LMCoder:
    """The coder ``exact-lm``, one per process. Raises as ``load_exact_lm``."""
    return LMCoder(load_exact_lm(), load_tokenizer(), load_prompts())
