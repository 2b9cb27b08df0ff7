# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of queues; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

STORE_SCHEMES: Final = ("redis://", "rediss://", "unix://")
NOT_A_STORE: Final = "the URL of a job store begins with redis://, rediss:// or unix://"


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

    @field_validator("redis_url")
    @classmethod
    def _has_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(STORE_SCHEMES):
            raise ValueError(NOT_A_STORE)
        return value
