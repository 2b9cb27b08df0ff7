# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the gateway; each is an environment variable ``PICOGRAM_<NAME>``."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from limits import RateLimitItem, parse_many
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from picogram.jobs.queue_settings import QueueSettings
from picogram.observe.log_settings import LogSettings
from picogram.workers.worker_settings import WorkerSettings


class GatewaySettings(QueueSettings, WorkerSettings, LogSettings):
    """Where to listen, whom to serve, and how much to take on. What embedded workers need is in it."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_", env_ignore_empty=True, frozen=True)

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; any but loopback needs API keys."
    )
    port: int = Field(default=8080, ge=0, le=65_535, description="Port of the HTTP interface.")
    metrics_host: str | None = Field(
        default=None, description="Address of /metrics; unset: that of the host."
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65_535, description="Port of /metrics; unset: none. 0: any free one."
    )

    api_keys: str = Field(
        default="",
        description="Hashed keys, name:sha256hex, separated by commas or blanks. `picogram keys new` makes them.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File with one name:sha256hex a line; # starts a comment."
    )
    allow_anonymous: bool = Field(
        default=False, description="Serve anybody beyond loopback when there are no keys."
    )
    rate_limit: str = Field(
        default="",
        description="Requests per key, else per address, such as 600/minute or 20/second;600/minute. Empty: no limit.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks, separated by commas, whose X-Forwarded-For is believed; * for all. With any, "
        "X-Forwarded-Prefix is believed, too.",
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path below which a proxy serves this server, such as /pico; it is put before every path handed out.",
    )

    max_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, description="Larger request bodies are refused."
    )
    max_bodies_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1, description="Bodies of all requests under way, before 503."
    )
    max_requests: int = Field(default=1000, ge=1, description="Requests under way at a time, before 503.")
    max_head_bytes: int = Field(
        default=64 * 1024, ge=1024, description="Request line and headers together; more is refused."
    )
    head_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Time for a request line with its headers before the connection ends."
    )
    body_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time for a request body to arrive before 408."
    )
    job_timeout_seconds: float = Field(
        default=120.0, gt=0, description="Time from submission to the end of a job before it is given up."
    )
    heartbeat_seconds: float = Field(
        default=15.0, gt=0, description="Pause between comments in an event stream without events."
    )

    @field_validator("rate_limit")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value:
            parse_many(value)
        return value

    @property
    def rate_limits(self) -> list[RateLimitItem]:
        """``rate_limit``, read."""
        return parse_many(self.rate_limit) if self.rate_limit else []

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
