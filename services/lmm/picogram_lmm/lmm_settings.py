# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the language-model worker; each is an environment variable ``PICOGRAM_LMM_<NAME>``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from picogram_lmm.vllm_engine import DEFAULT_ROWS


class LmmSettings(BaseSettings):
    """Which models deal with words, and what runs them."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_LMM_", env_ignore_empty=True, frozen=True)

    engine: Literal["embedded", "vllm"] = Field(
        default="embedded",
        description="embedded: the library's own models. vllm: see docs/vllm.md.",
    )
    models: Literal["all", "pulled"] = Field(
        default="all",
        description="embedded: all waits, not ready, until all models are pulled; pulled does without those that are "
        "not, so that texts take more bytes and pictures are not described.",
    )
    captioner: str | None = Field(
        default=None,
        description="vllm: the model that describes pictures, by name or folder; unset: the library's own.",
    )
    captioner_revision: str | None = Field(
        default=None, description="vllm: revision of the captioner, where it is named rather than a folder."
    )
    captioner_memory: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="vllm: part of the GPU's memory, or the machine's, that the captioner takes; unset: vLLM's default.",
    )
    coder: Literal["exact", "float"] = Field(
        default="exact",
        description="vllm: exact codes texts for any decoder; float may also use float_model, for this deployment alone.",
    )
    float_model: str | None = Field(
        default=None, description="vllm: the language model of coder float, by name or folder."
    )
    float_revision: str | None = Field(
        default=None, description="vllm: revision of float_model, where it is named rather than a folder."
    )
    rows: int = Field(
        default=DEFAULT_ROWS, ge=1, description="vllm: texts that share one step of the engine."
    )

    @model_validator(mode="after")
    def _float_needs_a_model(self) -> Self:
        if self.engine == "vllm" and self.coder == "float" and self.float_model is None:
            raise ValueError("coder float needs PICOGRAM_LMM_FLOAT_MODEL")
        return self
