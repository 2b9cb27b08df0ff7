# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Log lines, and what becomes of the work when nobody can take them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from picogram.observe.log_stream import LogStream

_PROGRAM = """
import logging, sys, threading
import structlog
from picogram.observe import logs
from picogram.observe.log_settings import LogSettings
logs.configure(LogSettings(log_level="debug", log_format=sys.argv[1]), service="test")
for number in range(2000):
    structlog.get_logger("picogram.test").debug("structured", number=number, text="\\ud800 x" * 10)
    logging.getLogger("picogram.test").warning("plain %s", number)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print("done", flush=True)
raise KeyError("nobody catches this")
"""


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("fate", ["gone", "closed", "full disk", "silent"])
def test_nothing_that_happens_to_the_log_breaks_or_holds_up_the_work(fate: str, form: str) -> None:
    command = [sys.executable, "-c", _PROGRAM, form]
    reader, writer = os.pipe()
    if fate == "gone":
        os.close(reader)
    if fate == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    if fate == "full disk":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writer)
    try:
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=30)
    finally:
        os.close(writer)
        if fate != "gone":
            os.close(reader)
    assert told.stdout == b"done\n"
    assert told.returncode == 1


def test_every_line_is_json_also_of_what_nobody_catches() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM, "json"], capture_output=True, timeout=30)
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert len(lines) == 4002
    assert ["ZeroDivisionError" in lines[-2]["exception"], "KeyError" in lines[-1]["exception"]] == [True] * 2


def test_lines_that_a_silent_reader_missed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    stream, started = LogStream(), time.monotonic()
    with os.fdopen(writer, "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        for _ in range(400):  # a pipe holds 64 KiB, as a rule
            stream.write("x" * 1000 + "\n")
        assert 0.9 < time.monotonic() - started < 3  # waited for once
        missed = stream.dropped
        assert missed > 200
        while select.select([reader], [], [], 0)[0]:
            os.read(reader, 65_536)
        stream.write("again\n")
    with os.fdopen(reader) as told:
        assert told.read() == f'{{"event": "{missed} log lines were dropped"}}\nagain\n'


def test_a_stream_without_a_descriptor_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    LogStream().write("hello\n")
    assert capsys.readouterr().err == "hello\n"
    assert not LogStream().isatty()


def test_there_may_be_no_standard_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert LogStream().write("hello\n") == 6
    with (tmp_path / "log").open("w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    assert LogStream().write("hello\n") == 6
