# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Forms of a target, HEAD, proxies that add a path, and text that is not what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from gateway_apps import image, make_app

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(trusted_proxies="*")) as made:
        yield made


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/openapi.json", "/", "/docs"])
def test_head_answers_as_get_does_without_a_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""


def test_head_of_what_is_only_posted_to_is_no_method(client: TestClient) -> None:
    assert client.head("/v1/encode").status_code == 405


def test_a_target_in_absolute_form_is_the_same() -> None:
    app = make_app()

    async def absolute(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "http":
            scope = scope | {"path": "http://example.org/livez"}
        await app(scope, receive, send)  # type: ignore[arg-type]

    with TestClient(absolute) as odd:  # type: ignore[arg-type]
        assert odd.get("/anything").json() == {"status": "alive"}


@pytest.mark.parametrize("query", ["caption=caf%E9", "caption=%ED%A0%80", "profile=%FF"])
def test_a_query_that_is_no_utf8_is_refused(client: TestClient, query: str) -> None:
    response = client.post(f"/v1/encode?profile=stc&{query}", content=image())
    assert response.status_code == 422
    assert "UTF-8" in response.json()["detail"]


@pytest.mark.parametrize("charset", ["undefined", "punycode", "no-such-thing", "utf-16"])
def test_a_form_with_an_odd_charset_is_the_callers_fault(client: TestClient, charset: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="caption"\r\n\r\na dog\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + image()
        + b"\r\n--b--\r\n"
    )
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    response = client.post("/v1/encode?profile=stc", content=body, headers={"Content-Type": kind})
    assert response.status_code in (200, 400, 422)


@pytest.mark.parametrize("prefix", ["/pico", "/a/b"])
def test_every_path_handed_out_has_the_prefix_of_a_trusted_proxy(client: TestClient, prefix: str) -> None:
    headers = {"X-Forwarded-Prefix": prefix}
    accepted = client.post("/v1/encode", content=image(), headers=ASYNC | headers)
    job = accepted.json()["id"]
    assert accepted.headers["location"] == f"{prefix}/v1/jobs/{job}"
    links = client.get(f"/v1/jobs/{job}", headers=headers).json()["links"]
    assert all(path.startswith(f"{prefix}/v1/jobs/{job}") for path in links.values())
    assert client.get("/openapi.json", headers=headers).json()["servers"] == [{"url": prefix}]
    assert "servers" not in client.get("/openapi.json").json()
    worded = client.post("/v1/encode?profile=stc", content=image(), headers=headers)
    assert worded.headers["link"].startswith(f"<{prefix}/v1/jobs/")


@pytest.mark.parametrize("prefix", ["pico", "//evil.example", "/a\\b", "/a?b", "/" + "a" * 200])
def test_a_prefix_that_is_none_is_ignored(client: TestClient, prefix: str) -> None:
    headers = ASYNC | {"X-Forwarded-Prefix": prefix}
    accepted = client.post("/v1/encode", content=image(), headers=headers)
    assert accepted.headers["location"].startswith("/v1/jobs/")


def test_nobody_else_is_believed_and_a_setting_is() -> None:
    for root, expected in (("", "/v1/jobs/"), ("/pico", "/pico/v1/jobs/")):
        with TestClient(make_app(root_path=root)) as client:
            headers = ASYNC | {"X-Forwarded-Prefix": "/elsewhere"}
            accepted = client.post("/v1/encode", content=image(), headers=headers)
            assert accepted.headers["location"].startswith(expected)


def test_the_page_asks_for_everything_below_itself(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path).text
        assert 'href="/' not in page
        assert 'src="/' not in page
