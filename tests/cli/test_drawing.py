# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram decode``: what can be said about drawing, here and on a server, and that nothing half done stays behind."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_codec import fake_decode, listing, pico, workplace
from live_gateway import Workers, listening
from PIL import Image

import picogram
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.cli.main import main
from picogram.cli.progress import progress_bar
from picogram.errors import CorruptBitstream
from picogram.images import write_image
from picogram.jobs import Job, Outcome, Result
from picogram.pipeline.draw import Watch
from picogram.pipeline.handovers import JobReport
from picogram.request import DecodeOptions
from picogram.results import Decoded
from picogram_gateway.workers import Backend

__all__ = ["workplace"]  # an autouse fixture, in force here because it is imported

FILE = serialise(Picogram(Header(Profile.BASE, 9, 9, 1), b"\x09x"))


class Terminal(io.StringIO):
    """A stderr that somebody looks at."""

    def isatty(self) -> bool:
        return True


class Decoder:
    """Gives a red square and remembers the jobs; with ``waits``, after they are canceled or 10 seconds."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.waits = False
        self.canceled = threading.Event()

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        self.jobs += jobs
        return [self._draw(job) for job in jobs]

    def _draw(self, job: Job) -> Outcome:
        job.control.progress(0.5)
        for _ in range(500 if self.waits else 0):
            if job.control.canceled:
                self.canceled.set()
                break
            threading.Event().wait(0.02)
        picture = Image.new("RGB", (9, 9), "red")
        report = JobReport(Decoded(picture).facts())
        return Result(write_image(picture, "image/png"), "image/png", report.facts())


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


@pytest.fixture
def url(decoder: Decoder) -> Iterator[str]:
    workers = Workers().backend
    with listening(Backend({**workers.handlers, "decoder": decoder}, catalogue=workers.catalogue)) as url:
        yield url


# --- here -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"steps": None, "guidance": None, "seed": 0}),
        (["--steps", "0"], {"steps": 0, "guidance": None, "seed": 0}),
        (["--steps", "50", "--guidance", "2.5", "--seed", "7"], {"steps": 50, "guidance": 2.5, "seed": 7}),
    ],
)
def test_options_reach_the_library(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: dict[str, Any]
) -> None:
    given: list[DecodeOptions] = []

    def decode(data: bytes, options: DecodeOptions, *, watch: Watch | None) -> Decoded:
        given.append(options)
        return fake_decode(data)

    monkeypatch.setattr(picogram, "decode_detailed", decode)
    pico("a.pico")
    assert main(["decode", "a.pico", *options]) == 0
    assert given == [DecodeOptions(**expected)]


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "-1"],
        ["--steps", "51"],
        ["--steps", "1.5"],
        ["--guidance", "20.5"],
        ["--guidance", "nan"],
        ["--guidance", "much"],
        ["--seed", "-1"],
        ["--seed", "4294967296"],
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_done(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.pico", "b.pico"):
        pico(name)
    assert main(["decode", "a.pico", "b.pico", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith(" [usage]\n")
    assert err.count("\n") == 1
    assert listing() == ["a.pico", "b.pico"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (CorruptBitstream("odd"), 4)])
def test_what_ends_while_it_is_drawn_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def decode(data: bytes, *options: Any, **more: Any) -> Any:
        raise error

    pico("a.pico")
    monkeypatch.setattr(picogram, "decode_detailed", decode)
    assert main(["decode", "a.pico", "-o", "folder/b.png"]) == code
    Path("b.png").write_bytes(b"old")
    assert main(["decode", "a.pico", "-o", "b.png", "--overwrite"]) == code
    assert listing() == ["a.pico", "b.png"]
    assert Path("b.png").read_bytes() == b"old"


# --- on a server ----------------------------------------------------------------------------------------------------


def test_options_reach_the_server(url: str, decoder: Decoder) -> None:
    Path("a.pico").write_bytes(FILE)
    options = ["--steps", "3", "--guidance", "0", "--seed", "4294967295"]
    assert main(["decode", "a.pico", "--server", url, *options]) == 0
    assert main(["decode", "a.pico", "--server", url, "--overwrite"]) == 0
    said = [[job.options[name] for name in ("steps", "guidance", "seed")] for job in decoder.jobs]
    assert said == [[3, 0.0, 2**32 - 1], [None, None, 0]]


def test_ctrl_c_leaves_no_file_and_gives_the_servers_job_up_where_it_is_followed(
    url: str, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.pico").write_bytes(FILE)
    decoder.waits = True

    @contextmanager
    def interrupted(verb: str, *, shown: bool) -> Iterator[Callable[[float], None]]:
        def show(fraction: float) -> None:
            raise KeyboardInterrupt

        yield show

    monkeypatch.setattr("picogram.cli.main.progress_bar", interrupted)
    assert main(["decode", "a.pico", "--server", url]) == 130
    assert decoder.canceled.wait(10)
    assert listing() == ["a.pico"]


def test_a_terminal_shows_how_far_the_server_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.pico").write_bytes(FILE)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["decode", "a.pico", "--server", url]) == 0
    assert "drawing" in terminal.getvalue()
    assert " 50%" in terminal.getvalue()


# --- the bar --------------------------------------------------------------------------------------------------------


def test_a_bar_appears_with_the_first_fraction_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("drawing") as show:
        assert show is None
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("drawing", shown=False) as show:
        assert show is None
    with progress_bar("drawing") as show:
        assert show is not None
    assert terminal.getvalue() == ""
    with progress_bar("drawing") as show:
        assert show is not None
        show(0.25)
    assert " 25%" in terminal.getvalue()
