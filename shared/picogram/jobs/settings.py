# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of queues and workers; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class QueueSettings(BaseSettings):
    """Where jobs wait, and for how long. Gateway and workers of one fleet need the same values."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_", env_ignore_empty=True, frozen=True)

    redis_url: SecretStr | None = Field(
        default=None,
        description="redis:// or rediss:// URL of the job store, with its password; unset: queues within this process.",
    )
    queue_prefix: str = Field(
        default="picogram",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Start of all keys, so that fleets can share a server.",
    )
    queue_depth: int = Field(
        default=64, ge=1, description="Jobs of one step that may wait or run before 503."
    )
    lease_seconds: float = Field(
        default=30.0,
        ge=0.2,
        description="Time without a sign of life after which a worker's jobs go to another.",
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Deliveries of a step before its job is given up as dead."
    )
    result_ttl_seconds: float = Field(
        default=600.0, gt=0, description="How long results, states and idempotency keys stay after the end."
    )
    max_result_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1,
        description="Within this process: results kept before the oldest are dropped, and payloads that may wait "
        "before 503. The job store has its own limit.",
    )
    blob_url: str = Field(
        default="redis",
        pattern=r"^(redis|file:///.*)$",
        description="Where payloads lie: redis, or file:///folder that all processes share.",
    )


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
        default=60.0,
        gt=0,
        description="Time that a running batch gets to end after SIGTERM; jobs not yet started are handed back at once.",
    )
    health_host: str = Field(default="0.0.0.0", description="Address of probes and metrics.")  # noqa: S104 - for probes from outside the container
    health_port: int = Field(
        default=9000, ge=0, le=65_535, description="Port of /livez, /startupz, /readyz and /metrics."
    )


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
