# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of logs and traces; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LogSettings(BaseSettings):
    """What is told to the outside."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_", env_ignore_empty=True, frozen=True)

    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is written."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="http(s) URL of an OpenTelemetry collector; unset: no traces. Needs the extra [otel].",
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Part of the traces begun here that is recorded; a caller's own traces are as the caller says.",
    )
