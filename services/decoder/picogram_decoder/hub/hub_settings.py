# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of models from a hub; each is an environment variable ``PICOGRAM_DECODER_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from picogram.diffusion.stages import AttentionMode


class HubSettings(BaseSettings):
    """Where a model's files come from and what runs them. Ignored by the embedded model."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_DECODER_", env_ignore_empty=True, frozen=True)

    local_dir: Path | None = Field(
        default=None,
        description="Folder with the model's files instead of the hub's, in the layout that docs/gpu-decoder.md shows.",
    )
    cache_dir: Path | None = Field(
        default=None, description="Folder of downloaded models; unset: that of huggingface_hub."
    )
    revision: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{40}$",
        description="Commit of the base model's repository to use instead of the one named in docs/gpu-decoder.md.",
    )
    offline: bool = Field(default=False, description="Use downloaded models only.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: the first GPU, or the CPU, where a picture takes minutes.",
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="Numbers that the networks work in; auto: float16 on GPUs, else float32."
    )
    attention: AttentionMode = Field(
        default="bias",
        description="How words act inside the masks of profile sedic; gradient, for models of many steps, is slower and "
        "takes memory (docs/gpu-decoder.md).",
    )
