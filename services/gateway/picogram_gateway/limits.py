# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A limit on request bodies that stands before every parser, for multipart files are unbounded otherwise."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picogram_gateway.problems import ProblemError, problem_response


class BodyLimit:
    """Refuses a too large Content-Length at once, and a chunked body as soon as it has grown too large."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_bytes:
            error = self._error()
            response = problem_response(
                scope, error.status_code, error.slug, error.title, error.detail, **error.extra
            )
            await response(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise self._error()
            return message

        await self._app(scope, counted, send)

    def _error(self) -> ProblemError:
        detail = f"the request body is larger than {self._max_bytes} bytes"
        return ProblemError(413, "body-too-large", "Request body too large", detail, limit=self._max_bytes)
