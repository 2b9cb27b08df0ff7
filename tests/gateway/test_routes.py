# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway over fake handlers: what it accepts, how it answers, and that every error is a problem."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator

import pytest
from gateway_apps import (
    DOT,
    FAILURES,
    PICOGRAM,
    Gate,
    check_problem,
    costs,
    echo,
    image,
    latent,
    make_app,
    pico,
    post_and_leave,
    running,
    wait_for,
)
from starlette.testclient import TestClient

from picogram import errors
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.problems import STATUS, ProblemError
from picogram_gateway.requests import Preference, negotiate, parse_prefer
from picogram_gateway.workers import Backend

OFFERED = ("image/png", "image/webp", "image/avif", "image/jpeg")
RETRIED = (b"queue-full", b"broker-unavailable")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(max_body_bytes=1000), raise_server_exceptions=False) as client:
        yield client


def test_encode_raw(client: TestClient) -> None:
    response = client.post("/v1/encode?bytes=800", content=image(), headers={"content-type": "image/png"})
    assert response.status_code == 200
    assert response.headers["content-type"] == PICOGRAM
    assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'
    assert response.headers["x-picogram-bytes"] == str(len(response.content))
    assert response.headers["x-picogram-bpp"] == f"{len(response.content):.6f}"
    assert (response.headers["x-picogram-width"], response.headers["x-picogram-height"]) == ("4", "2")
    assert "queue;dur=" in response.headers["server-timing"]
    assert "run;dur=" in response.headers["server-timing"]
    assert response.headers["x-request-id"].startswith("urn:uuid:")
    words = dict.fromkeys(("caption", "objects", "focus", "focus_mask"))
    options = {"bytes": 800, "bpp": None, "quality": None, "profile": "base", "effort": 0, **words}
    assert latent(response) == {"options": options, "text": "photo", "facts": {}}
    assert "link" not in response.headers
    assert costs(response) == len(response.content)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/x-unheard-of", "application/octet-stream", ""])
def test_encode_media_types(client: TestClient, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    assert client.post("/v1/encode", content=image(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/json", PICOGRAM, "application/x-www-form-urlencoded", "nonsense"],
)
def test_encode_refuses_what_is_no_image(client: TestClient, media_type: str) -> None:
    response = client.post("/v1/encode", content=image(), headers={"content-type": media_type})
    check_problem(response, 415, "unsupported-media-type")


def test_content_encoding_is_refused(client: TestClient) -> None:
    response = client.post("/v1/encode", content=image(), headers={"content-encoding": "gzip"})
    check_problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/encode", "image"), ("/v1/decode", "file"), ("/v1/inspect", "file")]
)
def test_multipart(client: TestClient, path: str, field: str) -> None:
    content = image(b"content") if field == "image" else pico(b"content")
    response = client.post(path, files={field: ("name", content)})
    said = latent(response) if path == "/v1/encode" else response.json()
    assert said["text"] == "content"
    check_problem(client.post(path, files={"other": ("name", content)}), 422, "usage")
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
    body = check_problem(client.post(f"/v1/encode?{query}", content=image()), 422, "usage")
    assert body["errors"]


@pytest.mark.parametrize("slug", sorted(FAILURES))
def test_every_picogram_error_is_a_problem(client: TestClient, slug: bytes) -> None:
    response = client.post("/v1/encode", content=image(slug))
    body = check_problem(response, STATUS[slug.decode()], slug.decode())
    assert body["detail"] == "no luck"
    assert ("retry-after" in response.headers) == (slug in RETRIED)


def test_unexpected_errors_say_nothing(client: TestClient) -> None:
    response = client.post("/v1/decode", content=pico(b"bug"))
    check_problem(response, 500, "internal")
    assert "secret" not in response.text


def test_routing_errors_are_problems(client: TestClient) -> None:
    check_problem(client.get("/nowhere"), 404, "not-found")
    check_problem(client.post("/v1/encode/", content=image()), 404, "not-found")
    response = client.get("/v1/encode")
    check_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_body_limit(client: TestClient) -> None:
    room = 1000 - len(DOT)
    assert client.post("/v1/encode", content=image(b"x" * room)).status_code == 200
    refused = client.post("/v1/encode", content=image(b"x" * (room + 1)))
    assert check_problem(refused, 413, "body-too-large")["limit"] == 1000
    check_problem(client.post("/v1/encode", content=iter([b"x" * 600] * 2)), 413, "body-too-large")
    check_problem(client.post("/v1/encode", files={"image": ("name", b"x" * 1000)}), 413, "body-too-large")


def test_chunked_multipart_body_limit(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    chunks = iter([head, b"x" * 600, b"x" * 600])
    check_problem(client.post("/v1/encode", content=chunks, headers=headers), 413, "body-too-large")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that it has no pixels for."""
    data = struct.pack(">II", width, height) + DOT[24:29]
    return DOT[:16] + data + struct.pack(">I", zlib.crc32(b"IHDR" + data)) + DOT[33:]


@pytest.mark.parametrize("path", ["/v1/encode", "/v1/describe", "/v1/reference?codec=webp&bytes=100"])
@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (bomb(60_000, 60_000), 413, "image-too-large"),
        (bomb(7000, 7000), 413, "image-too-large"),
        (bomb(0, 5), 422, "unreadable-image"),
        (b"hello", 422, "unreadable-image"),
        (b"<svg", 415, "unsupported-image"),
    ],
)
async def test_bombs_and_other_things_are_refused_before_they_wait(
    path: str, body: bytes, status: int, slug: str
) -> None:
    gate = Gate()
    async with running(make_app(gate, gate)) as client:
        check_problem(await client.post(path, content=body), status, slug)
    assert gate.seen == []


@pytest.mark.parametrize("path", ["/v1/decode", "/v1/inspect"])
async def test_files_that_claim_too_much_are_refused_before_they_wait(path: str) -> None:
    gate = Gate()
    vast = serialise(Picogram(Header(Profile.BASE, 60_000, 60_000, 1), b"latent"))
    async with running(make_app(gate, gate)) as client:
        check_problem(await client.post(path, content=vast), 413, "limit-exceeded")
        check_problem(await client.post(path, content=pico()[:-1]), 422, "corrupt-bitstream")
    assert gate.seen == []


async def test_jobs_cost_their_pixels() -> None:
    gate = Gate()
    gate.gone.set()
    async with running(make_app(gate)) as client:
        await client.post("/v1/encode", content=bomb(300, 200))
        await client.post("/v1/decode", content=serialise(Picogram(Header(Profile.BASE, 40, 20, 1), b"x")))
    assert [job.cost for job in gate.jobs] == [60_000, 800]


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
    response = client.post("/v1/decode", content=pico(), headers={"accept": accept})
    assert check_problem(response, 406, "not-acceptable")["offered"] == list(OFFERED)


def test_decode(client: TestClient) -> None:
    headers = {"accept": "image/webp", "content-type": PICOGRAM}
    response = client.post("/v1/decode", content=pico(), headers=headers)
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["vary"] == "Accept"
    drawing = {"steps": None, "guidance": None, "seed": 0}
    assert response.json()["options"] == {"media_type": "image/webp", **drawing}
    response = client.post("/v1/decode", content=pico(), headers={"content-type": "image/png"})
    check_problem(response, 415, "unsupported-media-type")


def test_inspect_and_models(client: TestClient) -> None:
    assert client.post("/v1/inspect", content=pico()).headers["content-type"] == "application/json"
    body = client.get("/v1/models").json()
    assert body["profiles"] == ["base"]
    assert body["limits"]["max_body_bytes"] == 1000
    steps = {worker["step"] for worker in body["workers"]}
    assert steps == {"encoder", "decoder", "lmm", "inspector"}


def test_openapi_documents_every_problem(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert "Problem" in schema["components"]["schemas"]
    for path in ("/v1/encode", "/v1/decode", "/v1/inspect", "/v1/describe", "/v1/reference"):
        route = schema["paths"][path]["post"]
        assert "multipart/form-data" in route["requestBody"]["content"]
        assert all(
            "application/problem+json" in route["responses"][s]["content"] for s in ("400", "415", "422")
        )
    parameters = schema["paths"]["/v1/encode"]["post"]["parameters"]
    names = {each["name"] for each in parameters if each["in"] == "query"}
    words = {"caption", "objects", "focus", "focus_mask"}
    assert names == {"bytes", "bpp", "quality", "profile", "effort"} | words
    headers = {each["name"] for each in parameters if each["in"] == "header"}
    assert headers == {"prefer", "idempotency-key", "x-picogram-priority"}
    form = schema["paths"]["/v1/encode"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == names | {"image"}
    assert {"200", "202", "401", "408", "429", "503", "504"} <= route["responses"].keys()
    assert client.get("/docs").status_code == 200


def test_every_reference_in_the_description_leads_somewhere(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert {"JobView", "Problem"} <= named
    assert named <= schema["components"]["schemas"].keys()


def test_every_error_has_a_status() -> None:
    assert {slug.decode() for slug in FAILURES} == set(STATUS)


def test_probes_follow_the_warm_up() -> None:
    gate = threading.Event()

    def warm_up() -> None:
        assert gate.wait(5)

    with TestClient(create_app(GatewaySettings(), Backend({"encoder": echo}, warm_up))) as client:
        assert client.get("/livez").status_code == 200
        check_problem(client.get("/startupz"), 503, "not-ready")
        check_problem(client.get("/readyz"), 503, "not-ready")
        gate.set()
        assert wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/startupz").status_code == 200


def test_a_failed_warm_up_is_never_ready() -> None:
    def warm_up() -> None:
        raise errors.ModelMissing("no weights")

    with TestClient(create_app(GatewaySettings(), Backend({"encoder": echo}, warm_up))) as client:
        assert not wait_for(lambda: client.get("/readyz").status_code == 200, tries=5)


def test_the_gateway_does_not_import_torch() -> None:
    code = """
import sys
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend, fleet_backend
for backend in (fleet_backend(), embedded_backend()):
    create_app(GatewaySettings(), backend)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_queue_full_and_timeout() -> None:
    gate = Gate()
    app = make_app(gate, queue_depth=1, job_timeout_seconds=0.3)
    async with running(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=image(b"one")))
        await gate.busy.wait()
        refused = await client.post("/v1/encode", content=image(b"two"))
        check_problem(refused, 503, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        check_problem(await first, 504, "job-timeout")
        gate.gone.set()


async def test_a_disconnect_cancels_the_job() -> None:
    gate = Gate()
    app = make_app(gate)
    async with running(app) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=image(b"one")))
        await gate.busy.wait()
        assert await post_and_leave(app, "/v1/encode", image(b"two")) == 499
        gate.gone.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/encode", content=image(b"three"))).status_code == 200
    assert gate.seen == [b"one", b"three"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preference()),
        (["respond-async"], Preference(True)),
        (["wait=5"], Preference(False, 5)),
        (["Respond-Async, WAIT=10"], Preference(True, 10)),
        (["respond-async", "wait=3"], Preference(True, 3)),
        (['wait="7"; foo=1, handling=lenient'], Preference(False, 7)),
        (["wait=soon"], Preference()),
        (["wait=-1"], Preference()),
        (["wait=\u0665"], Preference()),
        (["wait=" + 5000 * "9"], Preference()),
        (["wait=1, wait=2"], Preference(False, 1)),
        (["return=minimal"], Preference()),
    ],
)
def test_prefer_is_read_as_rfc_7240_has_it(headers: list[str], expected: Preference) -> None:
    assert parse_prefer(headers) == expected


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "\u00e9".encode().decode("latin-1")])
async def test_keys_are_visible_ascii(bad: str) -> None:
    async with running(make_app()) as client:
        headers = {b"idempotency-key": bad.encode("latin-1")}
        check_problem(await client.post("/v1/encode", content=image(), headers=headers), 422, "usage")


async def test_unknown_priorities_are_refused() -> None:
    async with running(make_app()) as client:
        headers = {"x-picogram-priority": "urgent"}
        check_problem(await client.post("/v1/encode", content=image(), headers=headers), 422, "usage")
