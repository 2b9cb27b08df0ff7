# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway over fake handlers: what it accepts, how it answers, and that every error is a problem."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from picogram import errors
from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.jobs import Handler, Job, Outcome, Result
from picogram_gateway.app import create_app
from picogram_gateway.dispatch import Backend
from picogram_gateway.negotiation import negotiate
from picogram_gateway.problems import STATUS, ProblemError
from picogram_gateway.settings import Settings

PICOGRAM = "application/vnd.picogram"
CAPTION = "Ein Höhlenbär\n\N{BEAR FACE} 100% \u05d3\u05d5\u05d1"
OFFERED = ("image/png", "image/webp", "image/avif", "image/jpeg")
FAILURES: dict[bytes, Exception] = {
    cls.slug.encode(): cls("no luck")
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.PicogramError)
}


def echo(jobs: list[Job]) -> list[Outcome]:
    """Answers with options and facts, in a file where one is wanted; a payload that names a slug fails with it."""
    return [_echo(job) for job in jobs]


def _echo(job: Job) -> Outcome:
    if job.payload in FAILURES:
        return FAILURES[job.payload]
    if job.payload == b"bug":
        return ZeroDivisionError("secret detail")
    said = {"options": dict(job.options), "payload": job.payload.decode("latin-1"), "facts": dict(job.facts)}
    body = json.dumps(said).encode()
    if job.kind == "encode":
        words = {"caption": job.facts["description"]["caption"].encode()} if job.facts else {}
        profile = Profile[job.options["profile"].upper()]
        return Result(serialise(Picogram(Header(profile, 4, 2, 1), body, words)), PICOGRAM)
    media_type = "application/json" if job.kind == "inspect" else job.options["media_type"]
    return Result(body, media_type, {"width": 4, "height": 2})


def latent(response: httpx2.Response) -> dict[str, Any]:
    """What ``echo`` answered."""
    said: dict[str, Any] = json.loads(parse(response.content).latent)
    return said


def words(jobs: list[Job]) -> list[Outcome]:
    """A language-model worker that finds every picture and every file to say the same."""
    return [_words(job) for job in jobs]


def _words(job: Job) -> Outcome:
    if job.payload in FAILURES:
        return FAILURES[job.payload]
    description: dict[str, Any] = {"caption": job.options.get("caption") or CAPTION, "objects": []}
    if job.task == "describe":
        return Result(json.dumps(description).encode(), "application/json")
    warnings = ("the objects were left out: \u202eodd",) if job.task == "read" else ()
    return Result(job.payload, PICOGRAM, {"description": description}, warnings)


def make_app(handler: Handler = echo, lmm: Handler = words, **settings: Any) -> FastAPI:
    handlers = dict.fromkeys(("encoder", "decoder", "inspector"), handler) | {"lmm": lmm}
    return create_app(
        Settings(**settings), Backend(handlers, catalogue=lambda: {"profiles": ["base"], "models": []})
    )


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(max_body_bytes=1000), raise_server_exceptions=False) as client:
        yield client


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


def test_encode_raw(client: TestClient) -> None:
    response = client.post("/v1/encode?bytes=800", content=b"photo", headers={"content-type": "image/png"})
    assert response.status_code == 200
    assert response.headers["content-type"] == PICOGRAM
    assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'
    assert response.headers["x-picogram-bytes"] == str(len(response.content))
    assert response.headers["x-picogram-bpp"] == f"{len(response.content):.6f}"
    assert (response.headers["x-picogram-width"], response.headers["x-picogram-height"]) == ("4", "2")
    assert "queue;dur=" in response.headers["server-timing"]
    assert "run;dur=" in response.headers["server-timing"]
    assert response.headers["x-request-id"].startswith("urn:uuid:")
    options = {"bytes": 800, "bpp": None, "quality": None, "profile": "base", "caption": None}
    assert latent(response) == {"options": options, "payload": "photo", "facts": {}}
    assert "x-picogram-caption" not in response.headers
    assert costs(response) == len(response.content)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/x-unheard-of", "application/octet-stream", ""])
def test_encode_media_types(client: TestClient, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    assert client.post("/v1/encode", content=b"photo", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/json", PICOGRAM, "application/x-www-form-urlencoded", "nonsense"],
)
def test_encode_refuses_what_is_no_image(client: TestClient, media_type: str) -> None:
    response = client.post("/v1/encode", content=b"photo", headers={"content-type": media_type})
    check_problem(response, 415, "unsupported-media-type")


def test_content_encoding_is_refused(client: TestClient) -> None:
    response = client.post("/v1/encode", content=b"photo", headers={"content-encoding": "gzip"})
    check_problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/encode", "image"), ("/v1/decode", "file"), ("/v1/inspect", "file")]
)
def test_multipart(client: TestClient, path: str, field: str) -> None:
    response = client.post(path, files={field: ("name", b"content")})
    said = latent(response) if path == "/v1/encode" else response.json()
    assert said["payload"] == "content"
    check_problem(client.post(path, files={"other": ("name", b"content")}), 422, "usage")
    check_problem(client.post(path, files={field: ("name", b"")}), 400, "empty-body")


def test_multipart_garbage(client: TestClient) -> None:
    headers = {"content-type": "multipart/form-data"}
    check_problem(client.post("/v1/encode", content=b"garbage", headers=headers), 400, "bad-request")


@pytest.mark.parametrize("path", ["/v1/encode", "/v1/decode", "/v1/inspect", "/v1/describe"])
def test_empty_body(client: TestClient, path: str) -> None:
    check_problem(client.post(path), 400, "empty-body")


@pytest.mark.parametrize(
    "query",
    [
        "bytes=10&bpp=0.1",
        "bpp=1&quality=3",
        "bytes=0",
        "bytes=x",
        "bpp=nan",
        "bpp=-1",
        "profile=none",
        "byte=800",
        "caption=hello",
        "caption=hello&profile=base",
        "profile=stc&caption=" + 10_001 * "a",
    ],
)
def test_invalid_queries(client: TestClient, query: str) -> None:
    body = check_problem(client.post(f"/v1/encode?{query}", content=b"photo"), 422, "usage")
    assert body["errors"]


@pytest.mark.parametrize("slug", sorted(FAILURES))
def test_every_picogram_error_is_a_problem(client: TestClient, slug: bytes) -> None:
    response = client.post("/v1/encode", content=slug)
    body = check_problem(response, STATUS[slug.decode()], slug.decode())
    assert body["detail"] == "no luck"
    assert ("retry-after" in response.headers) == (slug == b"queue-full")


def test_unexpected_errors_say_nothing(client: TestClient) -> None:
    response = client.post("/v1/decode", content=b"bug")
    check_problem(response, 500, "internal")
    assert "secret" not in response.text


def test_routing_errors_are_problems(client: TestClient) -> None:
    check_problem(client.get("/nowhere"), 404, "not-found")
    check_problem(client.post("/v1/encode/", content=b"photo"), 404, "not-found")
    response = client.get("/v1/encode")
    check_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_body_limit(client: TestClient) -> None:
    assert client.post("/v1/encode", content=b"x" * 1000).status_code == 200
    assert (
        check_problem(client.post("/v1/encode", content=b"x" * 1001), 413, "body-too-large")["limit"] == 1000
    )
    check_problem(client.post("/v1/encode", content=iter([b"x" * 600] * 2)), 413, "body-too-large")
    check_problem(client.post("/v1/encode", files={"image": ("name", b"x" * 1000)}), 413, "body-too-large")


def test_chunked_multipart_body_limit(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    chunks = iter([head, b"x" * 600, b"x" * 600])
    check_problem(client.post("/v1/encode", content=chunks, headers=headers), 413, "body-too-large")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("image/avif, image/webp;q=0.9", "image/avif"),
        ("image/webp;q=0.5, image/jpeg;q=0.8, */*;q=0.1", "image/jpeg"),
        ("image/png;q=0, */*", "image/webp"),
        ("text/html,image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("IMAGE/WEBP ; Q=1", "image/webp"),
        ("image/png;q=nonsense, image/jpeg;q=0.1", "image/jpeg"),
    ],
)
def test_negotiation(accept: str, expected: str) -> None:
    assert negotiate(accept, OFFERED) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "*/*;q=0", "image/png;q=0", "image/png;q=2"])
def test_nothing_acceptable(client: TestClient, accept: str) -> None:
    with pytest.raises(ProblemError):
        negotiate(accept, OFFERED)
    response = client.post("/v1/decode", content=b"pico", headers={"accept": accept})
    assert check_problem(response, 406, "not-acceptable")["offered"] == list(OFFERED)


def test_decode(client: TestClient) -> None:
    headers = {"accept": "image/webp", "content-type": PICOGRAM}
    response = client.post("/v1/decode", content=b"pico", headers=headers)
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["vary"] == "Accept"
    assert response.json()["options"] == {"media_type": "image/webp"}
    response = client.post("/v1/decode", content=b"pico", headers={"content-type": "image/png"})
    check_problem(response, 415, "unsupported-media-type")


def costs(response: httpx2.Response) -> int:
    """The sum of what the headers say that the parts of a file cost."""
    return sum(
        int(response.headers[f"x-picogram-{part}-bytes"])
        for part in ("header", "latent", "caption", "objects")
    )


def test_inspect_and_models(client: TestClient) -> None:
    assert client.post("/v1/inspect", content=b"pico").headers["content-type"] == "application/json"
    body = client.get("/v1/models").json()
    assert body["profiles"] == ["base"]
    assert body["limits"]["max_body_bytes"] == 1000


def test_openapi_documents_every_problem(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert "Problem" in schema["components"]["schemas"]
    for path in ("/v1/encode", "/v1/decode", "/v1/inspect", "/v1/describe"):
        route = schema["paths"][path]["post"]
        assert "multipart/form-data" in route["requestBody"]["content"]
        assert all(
            "application/problem+json" in route["responses"][s]["content"] for s in ("400", "415", "422")
        )
    names = {each["name"] for each in schema["paths"]["/v1/encode"]["post"]["parameters"]}
    assert names == {"bytes", "bpp", "quality", "profile", "caption"}
    form = schema["paths"]["/v1/encode"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == names | {"image"}
    assert client.get("/docs").status_code == 200


def test_probes_follow_the_warm_up() -> None:
    gate = threading.Event()

    def warm_up() -> None:
        assert gate.wait(5)

    with TestClient(create_app(Settings(), Backend({"encoder": echo}, warm_up))) as client:
        assert client.get("/livez").status_code == 200
        check_problem(client.get("/startupz"), 503, "not-ready")
        check_problem(client.get("/readyz"), 503, "not-ready")
        gate.set()
        assert _wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/startupz").status_code == 200


def test_a_failed_warm_up_is_never_ready() -> None:
    def warm_up() -> None:
        raise errors.ModelMissing("no weights")

    with TestClient(create_app(Settings(), Backend({"encoder": echo}, warm_up))) as client:
        assert not _wait_for(lambda: client.get("/readyz").status_code == 200, tries=5)


def test_the_gateway_does_not_import_torch() -> None:
    code = "import sys, picogram_gateway.app as a; a.create_app(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _wait_for(condition: Callable[[], bool], tries: int = 200) -> bool:
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

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        self.seen += [job.payload for job in jobs]
        self.sizes.append(len(jobs))
        self.loop.call_soon_threadsafe(self.busy.set)
        assert self.gone.wait(5)
        return self.handler(jobs)


def async_client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test")


async def test_queue_full_and_timeout() -> None:
    gate = Gate()
    app = make_app(gate, queue_depth=1, job_timeout_seconds=0.3)
    async with app.router.lifespan_context(app), async_client(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=b"one"))
        await gate.busy.wait()
        refused = await client.post("/v1/encode", content=b"two")
        check_problem(refused, 503, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        check_problem(await first, 504, "job-timeout")
        gate.gone.set()


async def test_a_disconnect_cancels_the_job() -> None:
    gate = Gate()
    app = make_app(gate)
    async with app.router.lifespan_context(app), async_client(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=b"one"))
        await gate.busy.wait()
        assert await _post_and_leave(app, b"two") == 499
        gate.gone.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/encode", content=b"three")).status_code == 200
    assert gate.seen == [b"one", b"three"]


async def _post_and_leave(app: FastAPI, body: bytes) -> int:
    """The status of a request whose client goes away once the body is sent."""
    messages = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/encode", "headers": [], "query_string": b""}
    await app({**scope, "http_version": "1.1", "scheme": "http", "raw_path": b"/v1/encode"}, receive, send)
    status: int = sent[0]["status"]
    return status
