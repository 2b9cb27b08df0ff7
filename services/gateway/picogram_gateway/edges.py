# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What may stand between a client and a route: other forms of a target, HEAD, a proxy that puts the server below a path.

GET http://host/livez      absolute-form (RFC 9112, section 3.2.2): the same as /livez
HEAD /livez                what GET answers, without its body
/pico/v1/...               PICOGRAM_ROOT_PATH, or X-Forwarded-Prefix of a trusted proxy: every path handed out has it
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.problems import problem_response

_PREFIX: ContextVar[str] = ContextVar("prefix", default="")
_SAFE_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){0,10}")


def on_server(path: str) -> str:
    """A path as a client of the request under way has to ask for it."""
    return _PREFIX.get() + path


class Edges:
    """Sees every request first."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app, self._root = app, settings.root_path
        self._trusts = bool(settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = dict(scope)
        if scope["path"].startswith(("http://", "https://")):
            scope["path"] = urlsplit(scope["path"]).path or "/"
            scope["raw_path"] = scope["path"].encode()
        token = _PREFIX.set(self._prefix(scope))
        try:
            if not _is_utf8(scope["query_string"]):
                response = problem_response(
                    scope, 422, "usage", "Invalid arguments", "the query is not UTF-8, percent-encoded"
                )
                await response(scope, receive, send)
            elif scope["method"] == "HEAD":
                await self._app({**scope, "method": "GET"}, receive, _without_body(send))
            else:
                await self._app(scope, receive, send)
        finally:
            _PREFIX.reset(token)

    def _prefix(self, scope: Scope) -> str:
        named = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/") if self._trusts else ""
        return named if named and _SAFE_PREFIX.fullmatch(named) else self._root


def _is_utf8(query: bytes) -> bool:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_body(send: Send) -> Send:
    async def passing(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return passing
