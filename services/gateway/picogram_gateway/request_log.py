# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One log line per request, and an id that the response, the problem and the line share."""

from __future__ import annotations

import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = structlog.get_logger("picogram.gateway")
_QUIET = ("/livez", "/readyz", "/startupz")


class RequestLog:
    """Logs method, path, status, bytes sent and seconds; successful probes stay silent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["picogram.request_id"] = f"urn:uuid:{uuid.uuid4()}"
        started, status, sent = time.perf_counter(), 500, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if status >= 400 or scope["path"] not in _QUIET:
                logger.info(
                    "request",
                    id=request_id,
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    bytes=sent,
                    seconds=round(time.perf_counter() - started, 4),
                )
