# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files, folders, patterns and pipes on the command line: what is read, what is written, what is kept."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_codec import fake_encode, feed, listing, photo, pico, workplace
from PIL import Image

import picogram
from picogram.bitstream import parse
from picogram.cli.main import main
from picogram.images import read_image
from picogram.models.fetch import cache_folder
from picogram.request import EncodeOptions
from picogram.results import Encoded

__all__ = ["workplace"]  # an autouse fixture, in force here because it is imported

# --- one file --------------------------------------------------------------------------------------------


def test_encode_writes_beside_the_input_and_says_what_it_cost(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    assert main(["encode", "a.png", "--bytes", "700"]) == 0
    assert b"'bytes': 700, 'bpp': None, 'quality': None, 'profile': 'base'" in Path("a.pico").read_bytes()
    out, err = capsys.readouterr()
    assert re.fullmatch(r"a\.png -> a\.pico: \d+ bytes, \d+\.\d{4} bpp, \d+\.\d\d s\n", out)
    assert err == ""


def test_options_reach_the_codec() -> None:
    photo("a.png")
    assert main(["encode", "a.png", "--bpp", "0.02", "--profile", "stc"]) == 0
    assert b"'bpp': 0.02, 'quality': None, 'profile': 'stc'" in Path("a.pico").read_bytes()
    assert main(["encode", "a.png", "-q", "40", "-o", "b.pico"]) == 0
    assert b"'quality': 40.0" in Path("b.pico").read_bytes()


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ([], "PNG"),
        (["-o", "x"], "PNG"),
        (["-o", "x.webp"], "WEBP"),
        (["-o", "x.jpg"], "JPEG"),
        (["-o", "x.jpeg"], "JPEG"),
        (["-o", "x.JPG", "--format", "avif"], "AVIF"),
        (["--format", "jpeg"], "JPEG"),
    ],
)
def test_decode_writes_the_format_that_was_asked_for(options: list[str], format: str) -> None:
    pico("a.pico")
    assert main(["decode", "a.pico", *options]) == 0
    (result,) = (name for name in listing() if name != "a.pico")
    with Image.open(result) as image:
        assert (image.format, image.size) == (format, (8, 6))


def test_a_strange_output_suffix_is_questioned(capsys: pytest.CaptureFixture[str]) -> None:
    pico("a.pico")
    assert main(["decode", "a.pico", "-o", "a.xyz"]) == 2
    assert "--format" in capsys.readouterr().err


# --- several files ---------------------------------------------------------------------------------------


def test_folders_are_searched_and_mirrored() -> None:
    photo("in/a.png")
    photo("in/deep/b.JPG")
    Path("in/notes.txt").write_text("no image")
    assert main(["encode", "in", "-o", "out"]) == 0
    assert main(["decode", "out", "-o", "back", "--format", "webp"]) == 0
    results = [name for name in listing() if not name.startswith("in/")]
    assert results == ["back/a.webp", "back/deep/b.webp", "out/a.pico", "out/deep/b.pico"]


def test_patterns_are_expanded_where_the_shell_did_not() -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        photo(name)
    assert main(["encode", "*.png"]) == 0
    assert [name for name in listing() if name.endswith(".pico")] == ["a.pico", "b.pico"]


def test_a_file_whose_name_looks_like_a_pattern_is_taken_as_it_is() -> None:
    photo("a[1].png")
    assert main(["encode", "a[1].png"]) == 0
    assert Path("a[1].pico").exists()


def test_failures_are_one_line_each_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("z.png")
    Path("bad.png").write_text("no image")
    Path("empty").mkdir()
    assert main(["encode", "a.png", "absent.png", "empty", "x*.png", "bad.png", "z.png"]) == 3
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["a.png", "z.png"]
    assert err.splitlines() == [
        "error: absent.png: no such file [usage]",
        "error: empty: no images in this folder [usage]",
        "error: x*.png: nothing matches [usage]",
        "error: bad.png: not an image, or a damaged one [unreadable-image]",
    ]


def test_the_exit_code_is_that_of_the_last_failure() -> None:
    Path("bad.png").write_text("no image")
    assert main(["encode", "bad.png", "absent.png"]) == 2
    assert main(["encode", "absent.png", "bad.png"]) == 3


def test_two_inputs_never_share_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("a.jpg")
    assert main(["encode", "a.jpg", "a.png", "--overwrite"]) == 2
    assert "a.png: a.pico is already the result of a.jpg [usage]" in capsys.readouterr().err


def test_several_results_need_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("b.png")
    Path("one.pico").write_bytes(b"kept")
    assert main(["encode", "a.png", "b.png", "-o", "one.pico"]) == 2
    assert main(["encode", "a.png", "b.png", "-o", "-"]) == 2
    assert main(["encode", "a.png", "-"]) == 2
    assert main(["encode", "-", "-"]) == 2
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())
    assert Path("one.pico").read_bytes() == b"kept"


# --- pipes -----------------------------------------------------------------------------------------------


def test_stdin_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> None:
    feed(monkeypatch, photo("a.png").read_bytes())
    assert main(["encode", "-"]) == 0
    data, err = capsysbinary.readouterr()
    assert (parse(data).header.width, parse(data).header.height) == (8, 6)
    assert re.match(rb"-: \d+ bytes", err)
    feed(monkeypatch, data)
    assert main(["decode", "-", "-o", "-", "--format", "webp"]) == 0
    assert read_image(capsysbinary.readouterr().out).size == (8, 6)


def test_stdin_can_go_to_a_file_and_a_file_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: Any
) -> None:
    feed(monkeypatch, photo("a.png").read_bytes())
    assert main(["encode", "-", "-o", "x.pico"]) == 0
    capsysbinary.readouterr()
    assert main(["decode", "x.pico", "-o", "-"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"\x89PNG")


def test_binary_data_is_not_poured_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    photo("a.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["encode", "a.png", "-o", "-"]) == 2
    assert "terminal" in capsys.readouterr().err


def test_a_failing_pipe_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> None:
    feed(monkeypatch, b"")
    assert main(["encode", "-"]) == 3
    out, err = capsysbinary.readouterr()
    assert (out, err) == (b"", b"error: -: the image is empty [unreadable-image]\n")


# --- nothing lost ----------------------------------------------------------------------------------------


def test_the_original_photo_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    original = photo("a.png").read_bytes()
    assert main(["encode", "a.png"]) == 0
    assert main(["decode", "a.pico"]) == 2
    assert capsys.readouterr().err == "error: a.pico: a.png exists; use --overwrite to replace it [usage]\n"
    assert Path("a.png").read_bytes() == original
    assert main(["decode", "a.pico", "--overwrite"]) == 0
    assert Path("a.png").read_bytes() != original


def test_an_input_is_never_its_own_result() -> None:
    photo("a.png")
    os.link("a.png", "twin.png")
    for out in ("a.png", "./a.png", "twin.png"):
        assert main(["encode", "a.png", "-o", out, "--overwrite"]) == 2
    assert read_image(Path("a.png")).size == (8, 6)


def test_a_full_disk_leaves_no_partial_file(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    photo("a.png")
    Path("a.pico").write_bytes(b"kept")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(os, "link", full)
    assert main(["encode", "a.png", "--overwrite"]) == 1
    assert main(["encode", "a.png", "-o", "new.pico"]) == 1
    assert "No space left on device [error]" in capsys.readouterr().err
    assert listing() == ["a.pico", "a.png"]
    assert Path("a.pico").read_bytes() == b"kept"


def test_a_result_that_appears_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("a.png")

    def slow_encode(image: Any, options: EncodeOptions) -> Encoded:
        Path("a.pico").write_bytes(b"kept")
        return fake_encode(image, options)

    monkeypatch.setattr(picogram, "encode_detailed", slow_encode)
    assert main(["encode", "a.png"]) == 2
    assert Path("a.pico").read_bytes() == b"kept"
    assert listing() == ["a.pico", "a.png"]


def test_file_systems_without_hard_links_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    photo("a.png")
    monkeypatch.setattr(os, "link", refuse)
    assert main(["encode", "a.png"]) == 0
    assert listing() == ["a.pico", "a.png"]


def test_devices_are_written_to_and_links_followed() -> None:
    pico("a.pico")
    Path("link.png").symlink_to("real.png")
    Path("real.png").write_bytes(b"old")
    assert main(["decode", "a.pico", "-o", "/dev/null", "--format", "png"]) == 0
    assert main(["decode", "a.pico", "-o", "link.png"]) == 2
    assert main(["decode", "a.pico", "-o", "link.png", "--overwrite"]) == 0
    assert not Path("/dev/null").is_file()
    assert Path("link.png").is_symlink()
    assert read_image(Path("real.png")).size == (8, 6)


def test_results_have_the_permissions_of_ordinary_files() -> None:
    photo("a.png")
    before = os.umask(0o027)
    try:
        assert main(["encode", "a.png"]) == 0
    finally:
        os.umask(before)
    assert Path("a.pico").stat().st_mode & 0o777 == 0o640


def test_ctrl_c_ends_with_130_and_leaves_nothing(monkeypatch: Any) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    for name in ("a.png", "b.png"):
        photo(name)
    monkeypatch.setattr(os, "link", interrupted)
    assert main(["encode", "a.png", "b.png"]) == 130
    assert listing() == ["a.png", "b.png"]


# --- what the surroundings may lack ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 5000])
def test_a_name_that_no_file_can_have_costs_only_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.png")
    assert main(["encode", "a.png", name, "-o", "out/"]) != 0
    assert Path("out/a.pico").exists()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_closed_standard_stream_stops_nothing(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("a.png")
    photo("b.png")
    monkeypatch.setattr(sys, stream, None)
    try:
        assert main(["encode", "a.png", "b.png", "-o", "out/"]) == 0
    finally:
        getattr(sys, stream).close()
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.pico", "b.pico"]


def test_a_private_file_stays_private_when_it_is_replaced() -> None:
    photo("a.png")
    assert main(["encode", "a.png"]) == 0
    Path("a.pico").chmod(0o600)
    assert main(["encode", "a.png", "--overwrite"]) == 0
    assert Path("a.pico").stat().st_mode & 0o777 == 0o600


def test_a_store_without_a_scheme_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "--redis", "localhost:6379"]) == 2
    assert "begins with redis://" in capsys.readouterr().err
    monkeypatch.setenv("PICOGRAM_PORT", "tcp://10.0.0.1:8080")
    assert main(["serve"]) == 2
    assert "enableServiceLinks" in capsys.readouterr().err


def test_without_a_home_there_is_still_a_place_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PICOGRAM_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert cache_folder().parts[-2:] == (".cache", "picogram")
