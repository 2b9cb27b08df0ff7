# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A text model put together: the language model from the cache, soft prompts and context network from the package.

``text-N.safetensors`` holds, for each prompt, ``prompt.KIND`` ``[layers, 2, n, kv * d] int8`` and the power of two of
each channel, ``prompt.KIND.shift`` ``[layers, 2, 1, kv * d] uint8``; and the context network under ``context.``.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from picogram.errors import ModelDamaged, ModelMissing
from picogram.exact.split_linear import SplitKernel
from picogram.models import weights_folder
from picogram.models.store import text_model_file, tokenizer_file
from picogram.text.lm.coder import LMCoder
from picogram.text.lm.context import PictureContext
from picogram.text.lm.mode import TEXT_MODEL
from picogram.text.lm.model import ExactLM
from picogram.text.lm.tokens import Tokens

_PROMPT, _CONTEXT = "prompt.", "context."


def text_manifest() -> dict[str, Any]:
    """Manifest of the shipped part of the text model."""
    path = weights_folder() / f"text-{TEXT_MODEL}.json"
    if not path.is_file():
        raise ModelMissing(f"{path.name} is missing from this installation: reinstall picogram-codec")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def shipped_file() -> Path:
    """Prompts and context network, checked against their manifest. ModelMissing or ModelDamaged."""
    manifest = text_manifest()
    path = weights_folder() / str(manifest["file"])
    if not path.is_file():
        raise ModelMissing(f"{path.name} is missing from this installation: reinstall picogram-codec")
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["sha256"]:
        raise ModelDamaged(f"{path.name} does not match its hash: reinstall picogram-codec")
    return path


def unpack_prompts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Soft prompts by kind, as ``LMCoder`` takes them: int64 ``[layers, 2, n, kv * d]``."""
    return {
        name.removeprefix(_PROMPT): value.long() << tensors[f"{name}.shift"].long()
        for name, value in tensors.items()
        if name.startswith(_PROMPT) and not name.endswith(".shift")
    }


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
    return LMCoder(load_exact_lm(), load_tokens(), unpack_prompts(load_file(shipped_file())))


@lru_cache(maxsize=4)
def load_context(latent_model: int, kernel: SplitKernel | None = None) -> PictureContext | None:
    """The context network for latents of a model; None if it was not made for that one."""
    if text_manifest().get("context_of") != latent_model:
        return None
    tensors = load_file(shipped_file())
    own = {k.removeprefix(_CONTEXT): v for k, v in tensors.items() if k.startswith(_CONTEXT)}
    return PictureContext(own, kernel)
