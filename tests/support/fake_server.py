# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A server that says what a test tells it to, for tests of the client, and clients of both colours to ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.client import AsyncClient, Client

URL = "http://pico.test/base"
JOB = "0123abc"
FILE = serialise(Picogram(Header(Profile.STC, 88, 8, 1), b"\x09late", {"caption": b"ca"}))
ENCODED = {
    "content-type": "application/vnd.picogram",
    "x-picogram-job": JOB,
    "server-timing": "queue;dur=12.5, run;dur=250.0",
}
LINK = {"link": f'</v1/jobs/{JOB}>; rel="describedby"; type="application/json"'}
"""Of answers whose words are in their job."""
Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


@dataclass
class Clock:
    """Time that passes only by sleeping, or when a test says so."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's clock; its jitter is always at its most."""
    clock = Clock()
    monkeypatch.setattr("picogram.client.policy.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("picogram.client.policy.random", SimpleNamespace(random=lambda: 1.0))
    monkeypatch.setattr("picogram.client.sync.time", SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr("picogram.client.asynchronous.anyio.sleep", clock.sleep_async)
    return clock


class FakeServer:
    """Gives its replies in order, and keeps the requests. More requests than replies are a failure of the test."""

    def __init__(self, color: str) -> None:
        self.color = color
        self.replies: list[Reply] = []
        self.requests: list[httpx2.Request] = []

    def run(self, action: Callable[[Any], Any], **settings: Any) -> Any:
        """What ``action(client)`` gives, all of it if it is an iterator."""
        if self.color == "sync":
            with Client(URL, transport=httpx2.MockTransport(self._reply), **settings) as client:
                result = action(client)
                return list(result) if isinstance(result, Iterator) else result
        return asyncio.run(self._run(action, **settings))

    @property
    def asked(self) -> list[str]:
        """Methods and paths of all requests."""
        return [f"{request.method} {request.url.path.removeprefix('/base')}" for request in self.requests]

    async def _run(self, action: Callable[[Any], Any], **settings: Any) -> Any:
        async with AsyncClient(URL, transport=httpx2.MockTransport(self._reply), **settings) as client:
            result = action(client)
            if isinstance(result, AsyncIterator):
                return [each async for each in result]
            return await result if isinstance(result, Awaitable) else result

    def _reply(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        assert self.replies, f"unexpected: {request.method} {request.url}"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        reply = reply(request) if callable(reply) else reply
        # A response serves once only, and parameters of a test come again.
        again = reply.stream.again() if isinstance(reply.stream, Stream) else httpx2.ByteStream(reply.content)
        return httpx2.Response(reply.status_code, headers=reply.headers, stream=again)


@pytest.fixture(params=["sync", "async"])
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    server = FakeServer(request.param)
    yield server
    assert not server.replies, "the client did not ask for everything"


class Stream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces; a piece may be an exception, or something to do before the next."""

    def __init__(self, pieces: Iterable[bytes | Exception | Callable[[], None]]) -> None:
        self._pieces = list(pieces)

    def again(self) -> Stream:
        return Stream(self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if callable(piece):
                piece()
            else:
                yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def encoded(data: bytes = FILE, **headers: str) -> httpx2.Response:
    more = [(f"x-picogram-{name}", value) for name, value in headers.items()]
    return httpx2.Response(200, headers=[*ENCODED.items(), *more], content=data)


def linked(data: bytes = FILE, **headers: str) -> httpx2.Response:
    """An encoded file whose words are in its job."""
    response = encoded(data, **headers)
    return httpx2.Response(200, headers=[*response.headers.multi_items(), *LINK.items()], content=data)


def problem(status: int, slug: str, detail: str = "no luck", **headers: str) -> httpx2.Response:
    body = {"type": f"https://picogram.dev/problems/{slug}", "title": "T", "status": status, "detail": detail}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    media_type = {"content-type": "application/problem+json"}
    return httpx2.Response(status, headers=media_type | headers, content=json.dumps(body).encode())


def view(status: str = "queued", error: dict[str, Any] | None = None, result: Any = None) -> httpx2.Response:
    """The job, as a 202 or 200 has it; ``result``: of one that is done."""
    body = {
        "id": JOB,
        "kind": "encode",
        "status": status,
        "step": "encoder",
        "priority": "high",
        "progress": 0.25,
        "attempt": 1,
        "created": "2026-03-01T12:00:00.000Z",
        "updated": "2026-03-01T12:00:01.500Z",
        "deadline": "2026-03-01T12:02:00Z",
        "error": error,
        "result": result,
        "links": {},
    }
    return httpx2.Response(202 if status == "queued" else 200, json=body)


def event(id: str, name: str, at: float = 1.0, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'at': at, **data})}\nid: {id}\n\n".encode()


def stream(*pieces: bytes | Exception | Callable[[], None]) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Stream(pieces))
