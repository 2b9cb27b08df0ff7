# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What both transports need around httpx2: requests with their timeouts, its errors as ours, answers that end in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import httpx2

from picogram.client.failures import Answer, BadAnswer, ConnectionFailed
from picogram.client.policy import Allowance
from picogram.client.tasks import Call
from picogram.errors import UsageError
from picogram.version import VERSION

CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 45.0
"""Longest silence of a server: above the wait for a first answer, and three heartbeats of an event stream."""
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 1024 * 1024

_NOT_PASSING: Final = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


def checked_url(url: str) -> str:
    """The URL of a server without a slash at its end. Raises UsageError."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise UsageError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"a server's URL looks like https://pico.example.org, not {url!r}")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise UsageError("a server's URL has no user, query or fragment; the key goes into api_key")
    return str(parsed).rstrip("/")


def client_headers(api_key: str | None) -> dict[str, str]:
    """What every request carries. Raises UsageError for a key that no header can hold."""
    headers = {"User-Agent": f"picogram/{VERSION}", "Accept-Encoding": "identity"}
    if api_key is not None:
        if not api_key or not all("!" <= character <= "~" for character in api_key):
            raise UsageError("an API key is visible ASCII without spaces")
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def built(
    http: httpx2.Client | httpx2.AsyncClient, base: str, call: Call, allowance: Allowance
) -> httpx2.Request:
    """The request of a call, whose silences end when the time of the call is up. Raises JobTimeout if it is already."""
    allowance.check()
    silent = min(SILENT_SECONDS, allowance.left)
    return http.build_request(
        call.method,
        base + call.path,
        params=call.params or None,
        headers=call.headers,
        content=call.content or None,
        timeout=httpx2.Timeout(silent, connect=min(CONNECT_SECONDS, allowance.left)),
    )


def refused(response: httpx2.Response) -> bool:
    """Whether an answer is to be read as a whole although an event stream was asked for."""
    return response.status_code != HTTPStatus.OK


class AnswerReader:
    """An answer's body as it comes: never more than the limit, never longer than the call may take."""

    def __init__(self, response: httpx2.Response, allowance: Allowance) -> None:
        good = response.status_code < HTTPStatus.MULTIPLE_CHOICES
        self._limit = allowance.policy.max_answer_bytes if good else MAX_REFUSAL_BYTES
        self._response, self._allowance = response, allowance
        self._body = bytearray()

    def add(self, chunk: bytes) -> None:
        """Raises BadAnswer and JobTimeout."""
        self._allowance.check()
        self._body += chunk
        if len(self._body) > self._limit:
            raise BadAnswer(
                f"the answer has more than {self._limit:,} bytes", status=self._response.status_code
            )

    def answer(self) -> Answer:
        """All of it."""
        return Answer(self._response.status_code, self._response.headers, bytes(self._body))


@contextmanager
def translated() -> Iterator[None]:
    """httpx2's errors as ConnectionFailed or BadAnswer, in one line."""
    try:
        yield
    except (httpx2.SSEError, httpx2.DecodingError) as error:
        raise BadAnswer(f"the answer cannot be read: {error}") from error
    except httpx2.RequestError as error:
        failure = ConnectionFailed(_line(error))
        failure.transient = not isinstance(error, _NOT_PASSING)
        raise failure from error
    except httpx2.InvalidURL as error:
        raise UsageError(f"not a URL: {error}") from error


def _line(error: httpx2.RequestError) -> str:
    """httpx2 says nothing at all of some timeouts."""
    where = error.request.url.copy_with(path="/", query=None) if _has_request(error) else "the server"
    what = "no answer in time" if isinstance(error, httpx2.TimeoutException) else str(error)
    return " ".join(f"{where}: {what or type(error).__name__}".split())


def _has_request(error: httpx2.RequestError) -> bool:
    try:
        return error.request is not None
    except RuntimeError:
        return False
