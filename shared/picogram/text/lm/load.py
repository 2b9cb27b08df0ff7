# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A text model put together: the language model from the cache, soft prompts and context network from the package.

``text-N.safetensors`` holds, for each prompt, ``prompt.KIND`` ``[layers, 2, n, kv * d] int8`` and the power of two of
each channel, ``prompt.KIND.shift`` ``[layers, 2, 1, kv * d] uint8``; and the context network under ``context.``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from picogram.exact.split_linear import SplitKernel
from picogram.models import shipped_manifest, shipped_weights
from picogram.models.store import text_model_file, tokenizer_file
from picogram.text.lm.coder import LMCoder
from picogram.text.lm.context import PictureContext
from picogram.text.lm.mode import TEXT_MODEL
from picogram.text.lm.model import ExactLM
from picogram.text.lm.tokens import Tokens

_PROMPT, _CONTEXT = "prompt.", "context."


def text_manifest() -> dict[str, Any]:
    """Manifest of the shipped part of the text model. ModelMissing."""
    return shipped_manifest(f"text-{TEXT_MODEL}")


def shipped_tensors() -> dict[str, Tensor]:
    """Prompts and, if there is one, the context network. ModelMissing or ModelDamaged."""
    return load_file(shipped_weights(text_manifest()))


def unpack_prompts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Soft prompts by kind, as ``LMCoder`` takes them: int64 ``[layers, 2, n, kv * d]``."""
    return {
        name.removeprefix(_PROMPT): value.long() << tensors[f"{name}.shift"].long()
        for name, value in tensors.items()
        if name.startswith(_PROMPT) and not name.endswith(".shift")
    }


def load_prompts() -> dict[str, Tensor]:
    """The soft prompts that ship. Raises as ``shipped_tensors``."""
    return unpack_prompts(shipped_tensors())


@lru_cache(maxsize=1)
def load_exact_lm() -> ExactLM:
    """The language model, one per process. ModelMissing or ModelDamaged name the command that helps."""
    return ExactLM(load_file(text_model_file()))


@lru_cache(maxsize=1)
def load_tokens() -> Tokens:
    """The vocabulary. Raises as ``load_exact_lm``."""
    return Tokens(tokenizer_file())


@lru_cache(maxsize=1)
def load_lm_coder() -> LMCoder:
    """The coder ``exact-lm``, one per process. Raises as ``load_exact_lm``."""
    return LMCoder(load_exact_lm(), load_tokens(), load_prompts())


@lru_cache(maxsize=4)
def load_context(latent_model: int, kernel: SplitKernel | None = None) -> PictureContext | None:
    """The context network for latents of a model; None if it was not made for that one."""
    if text_manifest().get("context_of") != latent_model:
        return None
    tensors = shipped_tensors()
    own = {k.removeprefix(_CONTEXT): v for k, v in tensors.items() if k.startswith(_CONTEXT)}
    return PictureContext(own, kernel)
