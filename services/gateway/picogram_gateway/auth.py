# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""API keys: who asks. Nothing of a body is read before that is known.

Kept are SHA-256 hashes. A plain hash is enough, for keys are random and long (``picogram keys new``), and it costs no
time that a caller without a key could make us waste.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from picogram.errors import UsageError
from picogram_gateway.problems import ProblemError, refuse
from picogram_gateway.settings import GatewaySettings

PROBES: Final = ("/livez", "/readyz", "/startupz")
_OPEN: Final = frozenset((*PROBES, "/", "/openapi.json", "/docs"))
_OPEN_FOLDER: Final = "/web/"
_ENTRY: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}):([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class KeyRing:
    """Owners' names with the hashes of their keys; a name may come twice, while its key changes."""

    entries: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, settings: GatewaySettings) -> KeyRing:
        """The keys of the settings and of the file. Raises UsageError for what is not ``name:sha256hex``."""
        found = [_entry(text, "PICOGRAM_API_KEYS") for text in re.split(r"[,\s]+", settings.api_keys) if text]
        if settings.api_keys_file is not None:
            found += _from_file(settings)
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
        owner = self._keys.owner(_given(Headers(scope=scope)))
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


def _given(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _unauthorized() -> ProblemError:
    detail = "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    headers = {"WWW-Authenticate": 'Bearer realm="picogram"'}
    return ProblemError(401, "unauthorized", "Unauthorized", detail, headers)


def _from_file(settings: GatewaySettings) -> Iterator[tuple[str, bytes]]:
    path = settings.api_keys_file
    assert path is not None  # noqa: S101 - the caller has looked
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the keys in {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            yield _entry(text, f"{path}, line {number}")


def _entry(text: str, place: str) -> tuple[str, bytes]:
    """What does not fit is not repeated, for it may be a key."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise UsageError(f"{place}: not name:sha256hex; `picogram keys new NAME` prints such a line")
    return match[1], bytes.fromhex(match[2])
