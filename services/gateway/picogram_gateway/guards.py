# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What stands before every route and every parser: API keys, rate limits, and limits of requests under way and of bodies.

    Auth ──> RateLimit ──> InFlight ──> BodyLimit ──> routes

Nothing of a body is read before it is known who asks. Of keys SHA-256 hashes are kept. A plain hash is enough, for keys
are random and long (``picogram keys new``), and it costs no time that a caller without a key could make us waste.
Requests are counted per key, else per address: in the job store where there is one, so for all gateways.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picogram.errors import UsageError
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.problems import ProblemError, refuse

logger = structlog.get_logger("picogram.gateway")

PROBES: Final = ("/livez", "/readyz", "/startupz")
_OPEN: Final = frozenset((*PROBES, "/", "/openapi.json", "/docs"))
_OPEN_FOLDER: Final = "/web/"
_KEY_LINE: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}):([0-9a-fA-F]{64})")
_STORE_CONNECTIONS: Final = 16
_STORE_TIMEOUT: Final = 1.0
"""Seconds to wait for the job store; a gateway that cannot count serves without counting."""


@dataclass(frozen=True)
class KeyRing:
    """Owners' names with the hashes of their keys; a name may come twice, while its key changes."""

    entries: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, settings: GatewaySettings) -> KeyRing:
        """The keys of the settings and of the file. Raises UsageError for what is not ``name:sha256hex``."""
        found = [
            _key_entry(text, "PICOGRAM_API_KEYS") for text in re.split(r"[,\s]+", settings.api_keys) if text
        ]
        if settings.api_keys_file is not None:
            found += _keys_from_file(settings)
            if not found:
                raise UsageError(f"{settings.api_keys_file} holds no keys")
        return cls(tuple(found))

    def owner(self, key: str) -> str | None:
        """Whose key it is. Takes as long for a wrong one: all are compared, each in constant time."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        owner = None
        for name, known in self.entries:
            if hmac.compare_digest(given, known):
                owner = name
        return owner


class Auth:
    """Refuses requests without a key, and tells the rest of the gateway who asks: ``owner_of(scope)``."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._keys.entries or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        owner = self._keys.owner(_given_key(Headers(scope=scope)))
        if owner is None:
            await refuse(scope, receive, send, _unauthorized())
            return
        scope["picogram.owner"] = owner
        await self._app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether anybody may ask for it: probes, the web page, the description of the interface."""
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def owner_of(scope: Scope) -> str:
    """Who asks; empty where nobody needs a key."""
    owner: str = scope.get("picogram.owner", "")
    return owner


def _given_key(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _unauthorized() -> ProblemError:
    detail = "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    headers = {"WWW-Authenticate": 'Bearer realm="picogram"'}
    return ProblemError(401, "unauthorized", "Unauthorized", detail, headers)


def _keys_from_file(settings: GatewaySettings) -> Iterator[tuple[str, bytes]]:
    path = settings.api_keys_file
    assert path is not None  # noqa: S101 - the caller has looked
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the keys in {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            yield _key_entry(text, f"{path}, line {number}")


def _key_entry(text: str, place: str) -> tuple[str, bytes]:
    """What does not fit is not repeated, for it may be a key."""
    match = _KEY_LINE.fullmatch(text)
    if match is None:
        raise UsageError(f"{place}: not name:sha256hex; `picogram keys new NAME` prints such a line")
    return match[1], bytes.fromhex(match[2])


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
            max_connections=_STORE_CONNECTIONS,
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

    def __init__(self, app: ASGIApp, rates: Rates, refused: Counter) -> None:
        self._app, self._rates, self._refused = app, rates, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(scope["path"]):
            wait = await self._rates.seconds_to_wait(_caller(scope))
            if wait is not None:
                self._refused.inc()
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


class InFlight:
    """Refuses requests beyond a number at a time; probes always pass."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app, self._max, self._now = app, max_requests, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._now >= self._max:
            await refuse(scope, receive, send, _overloaded(f"{self._max} requests are under way already"))
            return
        self._now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now -= 1


class BodyLimit:
    """Refuses a too large Content-Length at once, and any body as soon as it is too large, too slow or one too many.

    A body counts from its arrival to the end of its request.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._max_bytes = settings.max_body_bytes
        self._max_sum = settings.max_bodies_bytes
        self._seconds = settings.body_timeout_seconds
        self._sum = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await refuse(scope, receive, send, self._too_large())
            return
        seen, complete, deadline = 0, False, 0.0

        async def counted() -> Message:
            nonlocal seen, complete, deadline
            if complete:
                return await receive()  # which waits for the client to leave
            deadline = deadline or asyncio.get_running_loop().time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            size = len(message.get("body", b""))
            seen, self._sum = seen + size, self._sum + size
            if seen > self._max_bytes:
                raise self._too_large()
            if self._sum > self._max_sum:
                raise _overloaded("the requests under way fill the memory for bodies")
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._sum -= seen

    def _too_large(self) -> ProblemError:
        detail = f"the request body is larger than {self._max_bytes} bytes"
        return ProblemError(413, "body-too-large", "Request body too large", detail, limit=self._max_bytes)

    def _too_slow(self) -> ProblemError:
        detail = f"the request body took longer than {self._seconds:g} seconds"
        return ProblemError(408, "body-timeout", "Request body too slow", detail, {"Connection": "close"})


def _overloaded(detail: str) -> ProblemError:
    return ProblemError(503, "overloaded", "Overloaded", detail, {"Retry-After": "1"})
