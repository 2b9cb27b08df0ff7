# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of a worker; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """How a worker batches, where its probes are, and how it ends."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_", env_ignore_empty=True, frozen=True)

    max_batch: int = Field(
        default=1,
        ge=1,
        description="Jobs per call of encoder and decoder; only compatible ones share a call. 1 as both take one "
        "picture at a time, so that a batch would only delay its first answers.",
    )
    max_text_batch: int = Field(
        default=16,
        ge=1,
        description="Jobs per call of the language model, which shares its passes among texts.",
    )
    max_batch_pixels: int = Field(
        default=16_000_000, ge=1, description="Pixels per call; a larger picture runs alone."
    )
    linger_seconds: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Time to wait for a batch to grow once it has a job. 0 is right unless measured otherwise.",
    )
    drain_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Time that a running batch, or a request under way, gets to end after SIGTERM; jobs not yet started "
        "are handed back at once. Not less than PICOGRAM_JOB_TIMEOUT_SECONDS, or clients are cut off and work is lost.",
    )
    health_host: str = Field(default="0.0.0.0", description="Address of probes and metrics.")  # noqa: S104 - for probes from outside the container
    health_port: int = Field(
        default=9000, ge=0, le=65_535, description="Port of /livez, /startupz, /readyz and /metrics."
    )
