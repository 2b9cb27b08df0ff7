# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the gateway: with embedded workers, or over the job store that workers elsewhere share.

No HTTP connection can be held for nothing, by a request head that never ends or by an answer that nobody takes: uvicorn
has a limit for a head's size and none for its time, and keeps what a client does not read for ever.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from types import FrameType
from typing import Any, ClassVar

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from uvicorn.protocols.http.h11_impl import H11Protocol

from picogram.environment import read_settings
from picogram.errors import UsageError
from picogram.observe import logs, tracing
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.guards import KeyRing
from picogram_gateway.workers import embedded_backend, fleet_backend

_BACKLOG = 2048


def main(host: str | None = None, port: int | None = None, redis: str | None = None) -> None:
    """Serve until interrupted; requests under way get ``drain_seconds`` to end. What is not given, the environment says.

    Raises UsageError: settings or keys that cannot be read, beyond loopback without keys, a port that is taken.
    """
    settings = read_settings(
        GatewaySettings, host=host, port=port, redis_url=SecretStr(redis) if redis else None
    )
    check_exposure(settings)
    logs.configure(settings, service="gateway")
    flush = tracing.install("picogram-gateway", settings)
    if settings.drain_seconds < settings.job_timeout_seconds:
        structlog.get_logger("picogram.gateway").warning(
            "clients may be cut off at the end: PICOGRAM_DRAIN_SECONDS is less than PICOGRAM_JOB_TIMEOUT_SECONDS",
            drain_seconds=settings.drain_seconds,
            job_timeout_seconds=settings.job_timeout_seconds,
        )
    fleet = settings.redis_url is not None
    app = create_app(settings, fleet_backend() if fleet else embedded_backend())
    listening = listen(settings)
    address = f"http://{settings.host}:{listening.getsockname()[1]}"
    structlog.get_logger("picogram.gateway").info("starting", url=address, docs="/docs", fleet=fleet)
    # uvicorn raises the signal again once all is done; without a handler the process would end there and then.
    signal.signal(signal.SIGTERM, _leave)
    try:
        Server(configuration(app, settings)).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        flush()


def check_exposure(settings: GatewaySettings) -> None:
    """Raises UsageError if anybody could use a server that listens beyond loopback, and nobody said that they may."""
    if not (settings.loopback or settings.allow_anonymous or KeyRing.of(settings).entries):
        raise UsageError(
            f"{settings.host} can be reached from outside: set PICOGRAM_API_KEYS_FILE (`picogram keys new NAME` makes "
            "keys), or PICOGRAM_ALLOW_ANONYMOUS=true"
        )


def configuration(app: FastAPI, settings: GatewaySettings) -> uvicorn.Config:
    """uvicorn's, with limits on heads, and proxies believed only where they are named."""
    return uvicorn.Config(
        app,
        http=with_patience(settings.head_timeout_seconds),
        ws="none",
        h11_max_incomplete_event_size=settings.max_head_bytes,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )


class Server(uvicorn.Server):
    """Ends event streams when told to stop; uvicorn would wait for their readers."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests under way still end in peace."""
        app: Any = self.config.app
        app.state.dispatcher.drain()
        await super().shutdown(sockets)


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket to serve on. Raises UsageError where that is not possible."""
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


class Connection(H11Protocol):
    """h11 with two more timers. ``patience`` is in seconds."""

    patience: ClassVar[float] = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing is known of it yet; the clock runs."""
        self._head_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock any more."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What belongs to no request yet has to become one in time."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch_head()
        else:
            self._stop_head_timer()

    def on_response_complete(self) -> None:
        """The answer is in the socket's buffer; it has to leave it in time."""
        super().on_response_complete()
        self._watch_reader(0)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.patience, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reader(self, before: int) -> None:
        """Ends the connection when a whole period passed without a byte being taken."""
        left = self.transport.get_write_buffer_size()
        if left == 0:
            return
        if left == before:
            self.transport.abort()
        else:
            self.loop.call_later(self.patience, self._watch_reader, left)


def with_patience(seconds: float) -> type[Connection]:
    """The protocol for uvicorn, which makes its instances itself."""
    return type("PatientConnection", (Connection,), {"patience": seconds})
