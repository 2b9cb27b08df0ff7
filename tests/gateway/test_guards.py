# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What stands before the routes: keys, whose jobs are whose, how often, how many at a time, and how much."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_apps import Gate, check_problem, image, make_app, running
from pydantic import SecretStr
from starlette.testclient import TestClient

from picogram.cli import keys_command
from picogram.errors import UsageError
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.guards import KeyRing, Rates, is_open
from picogram_gateway.serve import check_exposure

OPEN = ["/livez", "/startupz", "/readyz", "/openapi.json", "/docs"]
CLOSED = [
    ("GET", "/v1/models"),
    ("POST", "/v1/encode"),
    ("POST", "/v1/reference?codec=webp&bytes=9"),
    ("GET", "/v1/jobs/x"),
    ("DELETE", "/v1/jobs/x"),
    ("GET", "/v1/jobs/x/events"),
    ("GET", "/nowhere"),
    ("GET", "/web"),
    ("GET", "/webx"),
    ("GET", "//v1/models"),
]


def line(name: str, key: str) -> str:
    return f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


KEYS = f"{line('ann', 'ann-key')},{line('bob', 'bob-key')} {line('ann', 'ann-new')}"
ANN, BOB = {"authorization": "Bearer ann-key"}, {"x-api-key": "bob-key"}


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_descriptions_need_no_key(path: str) -> None:
    with TestClient(make_app(api_keys=KEYS)) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic ann-key"},
        {"authorization": "Bearer "},
        {"x-api-key": "wrong"},
        {"x-api-key": hashlib.sha256(b"ann-key").hexdigest()},
        {"authorization": "Bearer wrong", "x-api-key": "ann-key"},
    ],
)
def test_all_else_does(method: str, path: str, headers: dict[str, str]) -> None:
    with TestClient(make_app(api_keys=KEYS)) as client:
        response = client.request(method, path, headers=headers)
        check_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        ANN,
        BOB,
        {"authorization": "bearer  ann-new"},
        {"x-api-key": "ann-new"},
        {"authorization": "Basic eA==", "x-api-key": "bob-key"},
    ],
)
def test_keys_open(headers: dict[str, str]) -> None:
    with TestClient(make_app(api_keys=KEYS)) as client:
        assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.post("/v1/encode", content=image(), headers=headers).status_code == 200


def test_only_the_folder_of_the_page_is_open() -> None:
    assert [is_open(path) for path in ("/", "/web/app.js", "/web", "/v1/models", "/docs/x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


async def test_nothing_of_a_body_is_read_without_a_key() -> None:
    app = make_app(api_keys=KEYS)
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("somebody reads the body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/encode", "raw_path": b"", "query_string": b""}
    headers = [(b"content-length", b"1000000"), (b"content-type", b"image/png")]
    await app({**scope, "headers": headers, "http_version": "1.1", "scheme": "http"}, receive, send)
    assert sent[0]["status"] == 401


async def test_jobs_are_their_owners() -> None:
    prefer = {"prefer": "respond-async"}
    async with running(make_app(api_keys=KEYS)) as client:
        job = (await client.post("/v1/encode", content=image(), headers=ANN | prefer)).json()["id"]
        for path in ("", "/result", "/events"):
            check_problem(await client.get(f"/v1/jobs/{job}{path}", headers=BOB), 404, "job-unknown")
        check_problem(await client.delete(f"/v1/jobs/{job}", headers=BOB), 404, "job-unknown")
        for headers in (ANN, {"x-api-key": "ann-new"}):
            assert (await client.get(f"/v1/jobs/{job}", headers=headers)).status_code == 200


async def test_idempotency_keys_are_their_owners() -> None:
    same = {"idempotency-key": "same"}
    async with running(make_app(api_keys=KEYS)) as client:
        first = await client.post("/v1/encode", content=image(b"a"), headers=ANN | same)
        second = await client.post("/v1/encode", content=image(b"b"), headers=BOB | same)
        assert (first.status_code, second.status_code) == (200, 200)
        third = await client.post("/v1/encode", content=image(b"b"), headers=ANN | same)
        check_problem(third, 422, "idempotency-conflict")


def test_a_key_from_the_command_opens_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# customers")
    keys_command.new("ann", file)
    keys_command.new("bob", file)
    ann, bob = capsys.readouterr().out.split()
    assert ann != bob
    assert ann not in file.read_text()
    monkeypatch.setenv("PICOGRAM_API_KEYS_FILE", str(file))
    with TestClient(make_app()) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"x-api-key": ann}).status_code == 200
    ring = KeyRing.of(GatewaySettings())
    assert (ring.owner(ann), ring.owner(bob), ring.owner(ann + "x")) == ("ann", "bob", None)


def test_a_new_file_of_keys_is_for_its_owner_only(tmp_path: Path) -> None:
    keys_command.new("ann", tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_without_a_file_the_line_is_printed_aside(capsys: pytest.CaptureFixture[str]) -> None:
    keys_command.new("ann")
    out, err = capsys.readouterr()
    assert line("ann", out.strip()) in err


@pytest.mark.parametrize("name", ["", "a:b", "a b", "x" * 65, "caf\u00e9", "a\n"])
def test_names_that_would_break_the_file_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        keys_command.new(name)


@pytest.mark.parametrize("text", ["ann", "ann:123", "ann:" + 64 * "g", ":" + 64 * "0", "secret-key-itself"])
def test_unreadable_keys_stop_the_start_and_are_not_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# one\n{line('ann', 'k')}  # hers\n{text}\n")
    with pytest.raises(UsageError, match="line 3") as caught:
        make_app(api_keys_file=file)
    assert text not in str(caught.value)
    with pytest.raises(UsageError, match="PICOGRAM_API_KEYS"):
        make_app(api_keys=text)


@pytest.mark.parametrize("content", [None, b"", b"# nobody\n", b"\xff\xfe"])
def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(UsageError):
        make_app(api_keys_file=tmp_path / "keys")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_beyond_loopback_keys_are_needed_unless_told_otherwise(host: str, loopback: bool) -> None:
    if loopback:
        check_exposure(GatewaySettings(host=host))
    else:
        with pytest.raises(UsageError, match="can be reached from outside"):
            check_exposure(GatewaySettings(host=host))
    check_exposure(GatewaySettings(host=host, api_keys=KEYS))
    check_exposure(GatewaySettings(host=host, allow_anonymous=True))


@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_who_comes_too_often_has_to_wait(store: str, request: pytest.FixtureRequest) -> None:
    settings: dict[str, Any] = {"api_keys": KEYS, "rate_limit": "2/day"}
    if store == "redis":
        url = request.getfixturevalue("valkey").url
        settings |= {"redis_url": url, "queue_prefix": f"test-{uuid.uuid4().hex[:8]}"}
    async with running(make_app(**settings)) as client:
        for _ in range(2):
            assert (await client.get("/v1/models", headers=ANN)).status_code == 200
        refused = await client.get("/v1/models", headers=ANN)
        check_problem(refused, 429, "rate-limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 172_800
        same = await client.get("/v1/models", headers={"x-api-key": "ann-new"})
        check_problem(same, 429, "rate-limited")
        assert (await client.get("/v1/models", headers=BOB)).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        check_problem(await client.get("/v1/models"), 401, "unauthorized")


async def test_without_keys_addresses_are_counted() -> None:
    app = make_app(rate_limit="1/day")
    codes = []
    async with running(app):
        for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
            transport = httpx2.ASGITransport(app=app, client=(address, 1))
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                codes.append((await client.get("/v1/models")).status_code)
    assert codes == [200, 429, 200]


async def test_a_store_that_is_away_does_not_stop_the_counting_gateway() -> None:
    rates = Rates(GatewaySettings(rate_limit="1/minute", redis_url=SecretStr("redis://127.0.0.1:1/0")))
    assert [await rates.seconds_to_wait("ann") for _ in range(2)] == [None, None]
    await rates.close()


def test_unreadable_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="rate_limit"):
        GatewaySettings(rate_limit="often")


async def test_requests_beyond_a_number_are_refused_but_probes_are_not() -> None:
    gate = Gate()
    async with running(make_app(gate, max_requests=2)) as client:
        waiting = [asyncio.create_task(client.post("/v1/encode", content=image())) for _ in range(2)]
        await gate.busy.wait()
        refused = await client.get("/v1/models")
        check_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200
        gate.gone.set()
        assert [each.status_code for each in await asyncio.gather(*waiting)] == [200, 200]
        assert (await client.get("/v1/models")).status_code == 200


async def test_bodies_under_way_share_a_limit_and_give_it_back() -> None:
    gate = Gate()
    async with running(make_app(gate, max_bodies_bytes=1500)) as client:
        first = asyncio.create_task(client.post("/v1/encode", content=image(b"x" * 900)))
        await gate.busy.wait()
        refused = await client.post("/v1/encode", content=image(b"x" * 900))
        check_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        gate.gone.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/encode", content=image(b"x" * 900))).status_code == 200


@pytest.mark.parametrize("fields", [9, 200])
async def test_forms_with_too_many_fields_are_refused(fields: int) -> None:
    form = {f"f{index}": "x" for index in range(fields)}
    async with running(make_app()) as client:
        files = {"image": ("name", io.BytesIO(image()))}
        check_problem(await client.post("/v1/encode", data=form, files=files), 400, "bad-request")


async def test_fields_of_a_form_are_limited() -> None:
    async with running(make_app()) as client:
        response = await client.post(
            "/v1/encode", data={"caption": "x" * 200_000}, files={"image": ("name", image())}
        )
        check_problem(response, 400, "bad-request")


async def test_large_files_in_forms_need_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", None)
    async with running(make_app()) as client:
        files = {"image": ("name", image(b"x" * 3_000_000))}
        assert (await client.post("/v1/encode", files=files)).status_code == 200
