# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the web page: how they are served, that nothing else is, and that they need nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Codec, fake_gateway
from starlette.testclient import TestClient

from picogram_gateway import web
from picogram_gateway.web import MEDIA_TYPES, page_folder, read_assets

FOLDER = Path(__file__).resolve().parents[2] / "web"
OURS = sorted(
    path
    for path in FOLDER.rglob("*")
    if path.suffix in (".html", ".css", ".js", ".svg") and "vendor" not in path.parts
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(fake_gateway(Codec())) as client:
        yield client


def test_the_page_is_served_with_a_strict_policy(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == (FOLDER / "index.html").read_bytes()
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy.pop("img-src") == "'self' blob: data:"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}


@pytest.mark.parametrize("path", ["index.html", "style.css", "main.js", "icon.svg", "samples/coffee.jpg"])
def test_files_have_types_and_a_strong_etag(client: TestClient, path: str) -> None:
    first = client.get(f"/web/{path}")
    assert first.status_code == 200
    assert first.content == (FOLDER / path).read_bytes()
    assert first.headers["content-type"] == MEDIA_TYPES[Path(path).suffix]
    etag = first.headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = client.get(f"/web/{path}", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert client.get(f"/web/{path}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_changed_file_has_another_etag(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("one")
    one = read_assets(tmp_path)["a.css"].etag
    (tmp_path / "a.css").write_text("two")
    assert read_assets(tmp_path)["a.css"].etag != one


def test_head(client: TestClient) -> None:
    response = client.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == (FOLDER / "index.html").stat().st_size


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nothing.js",
        "../pyproject.toml",
        "%2e%2e/pyproject.toml",
        "..%2fpyproject.toml",
        "/etc/passwd",
        "samples",
        "samples/README.md",
    ],
)
def test_nothing_else_can_be_asked_for(client: TestClient, path: str) -> None:
    response = client.get(f"/web/{path}")
    assert response.status_code == 404
    assert response.json()["type"].endswith("/not-found")


def test_only_reading(client: TestClient) -> None:
    for path in ("/", "/web/main.js"):
        assert client.post(path).status_code == 405


def test_a_wheel_has_the_page_beside_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "picogram_gateway"
    package.mkdir(parents=True)
    monkeypatch.setattr(web, "__file__", str(package / "web.py"))
    assert page_folder() is None
    (package / "web").mkdir()
    (package / "web" / "index.html").write_text("<!doctype html>")
    assert page_folder() == package / "web"


def test_all_that_the_page_refers_to_is_there() -> None:
    assets = read_assets(FOLDER)
    html = assets["index.html"].body.decode()
    references = re.findall(r'(?:src|href)="web/([^"]+)"', html)
    assert len(references) > 6
    for path in OURS:
        folder = path.parent.relative_to(FOLDER)
        imports = re.findall(r'from "\./([^"]+)"', path.read_text()) if path.suffix == ".js" else []
        references += [(folder / each).as_posix() for each in imports]
    assert [each for each in references if each not in assets] == []


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    for path in OURS:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//cdn|@import|innerHTML|eval\(", text), path
        if path.suffix == ".html":
            assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", text)


def test_source_files_say_whose_they_are_and_stay_small() -> None:
    for path in OURS:
        text = path.read_text()
        assert "SPDX-FileCopyrightText: The Picogram authors" in text[:200], path
        assert "SPDX-License-Identifier: Apache-2.0" in text[:200], path
        assert text.count("\n") < 400, path


def test_what_others_wrote_is_unchanged_and_licensed() -> None:
    notes = (FOLDER / "vendor" / "README.md").read_text()
    library = FOLDER / "vendor" / "qrcode-generator"
    assert hashlib.sha256((library / "qrcode.mjs").read_bytes()).hexdigest() in notes
    assert "MIT License" in (library / "LICENSE.txt").read_text()
    for path in (FOLDER / "vendor" / "swagger-ui").glob("swagger-ui*[!t]"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in notes, path
    assert "Apache License" in (FOLDER / "vendor" / "swagger-ui" / "LICENSE.txt").read_text()
    samples = FOLDER / "samples"
    photos = sorted(samples.glob("*.jpg"))
    assert len(photos) == 3
    assert sum(path.stat().st_size for path in photos) < 300_000
    assert all(f"`{path.name}`" in (samples / "README.md").read_text() for path in photos)
