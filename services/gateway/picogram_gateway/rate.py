# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How often one may ask: per key, else per address; counted in the job store where there is one, so for all gateways."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import structlog
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from starlette.types import ASGIApp, Receive, Scope, Send

from picogram_gateway.auth import is_open, owner_of
from picogram_gateway.metrics import GatewayMetrics
from picogram_gateway.problems import ProblemError, refuse
from picogram_gateway.settings import GatewaySettings

logger = structlog.get_logger("picogram.gateway")
_CONNECTIONS: Final = 16
_STORE_TIMEOUT: Final = 1.0
"""Seconds to wait for the job store; a gateway that cannot count serves without counting."""


class Rates:
    """The counts, and where they are kept."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limits = settings.rate_limits
        self._pool: Any = None
        self._counts: SlidingWindowCounterRateLimiter | None = None
        if self._limits:
            self._counts = SlidingWindowCounterRateLimiter(self._storage(settings))

    def __str__(self) -> str:
        """For a person."""
        return ", ".join(str(limit) for limit in self._limits)

    async def seconds_to_wait(self, caller: str) -> int | None:
        """Counts a request of the caller. None: it may go on."""
        counts = self._counts
        if counts is None:
            return None
        try:
            for limit in self._limits:
                if not await counts.hit(limit, caller):
                    stats = await counts.get_window_stats(limit, caller)
                    return max(1, math.ceil(stats.reset_time - time.time()))
        except StorageError as error:
            logger.warning("requests cannot be counted", error=str(error))
        return None

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool:
            await self._pool.aclose()

    def _storage(self, settings: GatewaySettings) -> Storage:
        if settings.redis_url is None:
            return MemoryStorage()
        from redis.asyncio import BlockingConnectionPool

        url = settings.redis_url.get_secret_value()
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_STORE_TIMEOUT,
            socket_timeout=_STORE_TIMEOUT,
            socket_connect_timeout=_STORE_TIMEOUT,
        )
        return RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=f"{settings.queue_prefix}:rate",
            connection_pool=self._pool,
        )


class RateLimit:
    """Refuses what comes too often; probes, the web page and the interface's description are free."""

    def __init__(self, app: ASGIApp, rates: Rates, metrics: GatewayMetrics) -> None:
        self._app, self._rates, self._metrics = app, rates, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(scope["path"]):
            wait = await self._rates.seconds_to_wait(_caller(scope))
            if wait is not None:
                self._metrics.rate_limited.inc()
                await refuse(scope, receive, send, _too_often(self._rates, wait))
                return
        await self._app(scope, receive, send)


def _caller(scope: Scope) -> str:
    """A key's owner cannot be taken for an address, nor the other way round."""
    owner, client = owner_of(scope), scope.get("client")
    return f"key/{owner}" if owner else f"address/{client[0] if client else ''}"


def _too_often(rates: Rates, wait: int) -> ProblemError:
    detail = f"more than {rates}; try again in {wait} s"
    return ProblemError(429, "rate-limited", "Too many requests", detail, {"Retry-After": str(wait)})
