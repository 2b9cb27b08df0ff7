# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway over fake handlers, what to send it, and how its answers are checked."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from picogram import errors
from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.pipeline.handovers import JobReport, WordsRead, WordsToWrite
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.request import EncodeOptions
from picogram.results import Decoded, Encoded, ImageFile
from picogram.semantics.description import Description
from picogram.semantics.words import ReadText, TextSections
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.serve import Server, configuration
from picogram_gateway.workers import Backend

if TYPE_CHECKING:
    from picogram.latent.focus import Focus

PICOGRAM = "application/vnd.picogram"
CAPTION = "Ein Höhlenbär\n\N{BEAR FACE} 100% \u05d3\u05d5\u05d1"
FAILURES: dict[bytes, Exception] = {
    cls.slug.encode(): cls("no luck")
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.PicogramError)
}


def _dot(width: int = 1, height: int = 1) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


DOT = _dot()


def until_ready(client: TestClient) -> TestClient:
    """The client, once the models behind it are loaded."""
    deadline = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return client


def image(text: bytes = b"photo") -> bytes:
    """A picture of one pixel with a text behind it, which readers of pictures do not mind."""
    return DOT + text


def pico(text: bytes = b"latent") -> bytes:
    """A .pico file of the profile base with a text for a latent."""
    return serialise(Picogram(Header(Profile.BASE, 4, 2, 1), text))


def text_of(payload: bytes) -> bytes:
    """What ``image`` and ``pico`` put in."""
    return payload.removeprefix(DOT) if payload.startswith(DOT) else parse(payload).latent


def echo(jobs: list[Job]) -> list[Outcome]:
    """Answers with options and facts, in a file where one is wanted; a text that is a slug fails with its error."""
    return [_echo(job) for job in jobs]


def _echo(job: Job) -> Outcome:
    text = text_of(job.payload)
    if text in FAILURES:
        return FAILURES[text]
    if text == b"bug":
        return ZeroDivisionError("secret detail")
    said = {"options": dict(job.options), "text": text.decode("latin-1"), "facts": dict(job.facts)}
    body = json.dumps(said).encode()
    if job.kind == "encode":
        return _echo_file(job, body)
    if job.kind == "inspect":
        return Result(body, "application/json", WordsRead.taken())
    left = WordsRead.of(job.facts)
    picture = ImageFile(body, job.options["media_type"], (4, 2))
    decoded = Decoded(picture, left.text.description if left else None)
    return Result(body, picture.media_type, JobReport(decoded.facts()).facts() | WordsRead.taken())


def _echo_file(job: Job, body: bytes) -> Result:
    left = WordsToWrite.of(job.facts)
    prepared = left.prepared if left else PreparedWords()
    variant, profile = prepared.variants[0], Profile[job.options["profile"].upper()]
    file = serialise(Picogram(Header(profile, 4, 2, 1), body, variant.sections.optional))
    encoded = Encoded(file, variant.description, variant.sections.coders, prepared.hints.heard)
    return Result(file, PICOGRAM, JobReport(encoded.facts()).facts() | WordsToWrite.taken())


def latent(response: httpx2.Response) -> dict[str, Any]:
    """What ``echo`` answered to a request to encode."""
    said: dict[str, Any] = json.loads(parse(response.content).latent)
    return said


def result_of(client: TestClient, response: httpx2.Response) -> dict[str, Any]:
    """What the job says of a result, to which its answer has a link."""
    path = f"/v1/jobs/{response.headers['x-picogram-job']}"
    assert response.headers["link"].startswith(f'<{path}>; rel="describedby"')
    view = client.get(path).json()
    assert view["status"] == "done"
    said: dict[str, Any] = view["result"]
    return said


def words(jobs: list[Job]) -> list[Outcome]:
    """A language-model worker that finds every picture and every file to say the same."""
    return [_words(job) for job in jobs]


def _words(job: Job) -> Outcome:
    if text_of(job.payload) in FAILURES:
        return FAILURES[text_of(job.payload)]
    if job.task == "describe":
        return Result(json.dumps({"caption": CAPTION, "objects": []}).encode(), "application/json")
    if job.task == "read":
        read = WordsRead(ReadText(Description(CAPTION)))
        return Result(job.payload, PICOGRAM, read.facts(), ("the objects were left out: \u202eodd",))
    return Result(job.payload, PICOGRAM, WordsToWrite(_prepared(EncodeOptions.of(job.options))).facts())


def _prepared(options: EncodeOptions) -> PreparedWords:
    caption = options.caption or CAPTION
    focus = place_of(options.focus) if isinstance(options.focus, str) else None
    if options.spec.guided:
        return PreparedWords(hints=Hints(caption, np.zeros((1, 2), np.float16), focus))
    if not options.spec.sections:
        return PreparedWords(hints=Hints(focus=focus))
    sections = TextSections(caption.encode(), coders={"caption": "utf-8"})
    return PreparedWords((WordsVariant(sections, Description(caption)),), hints=Hints(focus=focus))


def place_of(words: str) -> Focus:
    """Where every picture shows what ``words`` name: each of their bytes is a weight."""
    from picogram.latent.focus import Focus  # needs torch, unlike gateways

    return Focus.of(np.frombuffer(words.encode(), np.uint8)[None] / np.float32(255))


def make_app(handler: Handler = echo, lmm: Handler = words, **settings: Any) -> FastAPI:
    handlers = dict.fromkeys(("encoder", "decoder", "inspector"), handler) | {"lmm": lmm}
    catalogue = {"profiles": ["base"], "models": []}
    return create_app(GatewaySettings(**settings), Backend(handlers, catalogue=lambda: catalogue))


def check_problem(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"https://picogram.dev/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("urn:uuid:")
    assert "Traceback" not in response.text
    return body


def costs(response: httpx2.Response) -> int:
    """The sum of what the headers say that the parts of a file cost."""
    return sum(
        int(response.headers[f"x-picogram-{part}-bytes"])
        for part in ("header", "latent", "caption", "objects")
    )


def wait_for(condition: Callable[[], bool], tries: int = 200) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(tries))


class Gate:
    """A handler that says when it runs, and waits to be let go."""

    def __init__(self, handler: Handler = echo) -> None:
        self.handler = handler
        self.sizes: list[int] = []
        self.loop = asyncio.get_running_loop()
        self.busy, self.gone = asyncio.Event(), threading.Event()
        self.seen: list[bytes] = []
        self.jobs: list[Job] = []

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        self.jobs += jobs
        self.seen += [text_of(job.payload) for job in jobs]
        self.sizes.append(len(jobs))
        self.loop.call_soon_threadsafe(self.busy.set)
        assert self.gone.wait(10)
        return self.handler(jobs)


def async_client(app: FastAPI, **options: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://test", **options)


@asynccontextmanager
async def running(app: FastAPI, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the app, without a socket; ``options`` are the client's."""
    async with app.router.lifespan_context(app), async_client(app, **options) as client:
        yield client


async def post_and_leave(app: FastAPI, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    """The status of a request whose client goes away once the body is sent."""
    messages = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": encoded, "query_string": b""}
    await app({**scope, "http_version": "1.1", "scheme": "http", "raw_path": path.encode()}, receive, send)
    status: int = sent[0]["status"]
    return status


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[tuple[str, int]]:
    """Host and port of the app behind a real uvicorn, configured as in production."""
    settings: GatewaySettings = app.state.settings
    config: uvicorn.Config = configuration(app, settings)
    config.host, config.port = "127.0.0.1", 0
    server = Server(config)
    serving = asyncio.create_task(server._serve())
    until = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < until
        await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
