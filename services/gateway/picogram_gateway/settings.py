# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the gateway; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where to listen, and how much to take on."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_", frozen=True)

    host: str = Field(
        default="127.0.0.1", description="Loopback unless told otherwise: there is no authentication."
    )
    port: int = Field(default=8080, ge=0, le=65_535)
    max_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, description="Larger request bodies are refused."
    )
    queue_depth: int = Field(
        default=64, ge=1, description="Jobs of one kind that may wait or run before 503."
    )
    job_timeout_seconds: float = Field(
        default=120.0, gt=0, description="Time from submission to answer before 504."
    )
    max_batch: int = Field(
        default=1, ge=1, description="Jobs per handler call; 1 as base codes one image at a time."
    )
    max_text_batch: int = Field(
        default=16,
        ge=1,
        description="Jobs per call of the language model, which shares its passes among texts.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal."
    )
