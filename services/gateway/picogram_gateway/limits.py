# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Limits that stand before every parser: on requests under way, and on the size, the time and the sum of their bodies."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picogram_gateway.auth import PROBES
from picogram_gateway.problems import ProblemError, refuse
from picogram_gateway.settings import GatewaySettings


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
