# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram encode --server`` and its like: the lines, files and codes of the library, from a server's work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_codec import feed
from live_gateway import Workers, listening
from PIL import Image

import picogram
from picogram.cli.main import main
from picogram.images import read_image

KEY = "let-me-in"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Workers().backend) as url:
        yield url


@pytest.fixture(autouse=True)
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PICOGRAM_DEBUG", raising=False)
    monkeypatch.delenv("PICOGRAM_API_KEY", raising=False)
    Image.new("RGB", (40, 30), "red").save("a.png")


def test_encode_and_decode_on_a_server(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "--bytes", "900", "--server", url]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"a\.png -> a\.pico: \d+ bytes, 0\.\d{4} bpp, \d+\.\d\d s\n", out), out
    assert err == ""
    assert main(["decode", "a.pico", "-o", "b.webp", "--server", url]) == 0
    assert re.fullmatch(r"a\.pico -> b\.webp: 40x30, \d+\.\d\d s\n", capsys.readouterr().out)
    with Image.open("b.webp") as image:
        assert image.format == "WEBP"


def test_words_are_shown_whole_and_warnings_are_passed_on(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = 1000 * "Bär " + "\n!"
    assert main(["encode", "a.png", "--profile", "stc", "--caption", words, "--server", url]) == 0
    out, err = capsys.readouterr()
    shown = words.replace("\n", "\\n")
    assert re.search(r"^  caption \(\d+ bytes, \d\d% of the file, (static|raw)\): ", out, re.MULTILINE)
    assert out.endswith(f": {shown}\n")
    assert err == "warning: a.png: the \\u202ewords are \\\\odd\n"
    assert main(["decode", "a.pico", "-o", "b.png", "--server", url]) == 0
    assert f"  caption: {shown}\n" in capsys.readouterr().err
    with Image.open("b.png") as image:
        assert image.info["Description"] == words
        assert image.info["Software"] == "picogram; partly imagined"


def test_inspect_and_caption_on_a_server(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["encode", "a.png", "--server", url])
    capsys.readouterr()
    for options in ([], ["--json"]):
        assert main(["inspect", "a.pico", *options]) == 0
        here = capsys.readouterr()
        assert main(["inspect", "a.pico", *options, "--server", url]) == 0
        assert capsys.readouterr() == here
    assert main(["caption", "a.png", "--server", url]) == 0
    assert capsys.readouterr().out == "a.png\n  caption: A red dog.\n  object: dog: red\n"
    assert main(["caption", "a.png", "--json", "--server", url]) == 0
    assert json.loads(capsys.readouterr().out)["objects"][0]["mask"][4] == "#" * 8


def test_pipes(url: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    feed(monkeypatch, Path("a.png").read_bytes())
    assert main(["encode", "-", "--server", url]) == 0
    data = capsysbinary.readouterr().out
    feed(monkeypatch, data)
    assert main(["decode", "-", "--server", url]) == 0
    assert read_image(capsysbinary.readouterr().out).size == (40, 30)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["encode", "bad.png"], 3, r"error: bad\.png: .+ \[unreadable-image\]"),
        (["encode", "a.png", "--bpp", "-1"], 2, r"error: bpp must be a number from .+ \[usage\]"),
        (["decode", "odd.pico"], 4, r"error: odd\.pico: .+ \[not-a-picogram\]"),
        (["inspect", "odd.pico"], 4, r"error: odd\.pico: .+ \[not-a-picogram\]"),
        (["caption", "bad.png", "a.png"], 3, r"error: bad\.png: .+ \[unreadable-image\]"),
        (["encode", "a.png", "--api-key-env", "NO_SUCH_KEY"], 2, r"error: .*NO_SUCH_KEY.* \[usage\]"),
    ],
)
def test_failures_are_the_librarys(
    url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    for name in ("bad.png", "odd.pico"):
        Path(name).write_bytes(b"nonsense")
    assert main([*arguments, "--server", url]) == code
    assert re.fullmatch(said + "\n", capsys.readouterr().err)


def test_keys_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = f"me:{hashlib.sha256(KEY.encode()).hexdigest()}"
    with listening(Workers().backend, api_keys=keys) as url:
        assert main(["encode", "a.png", "--server", url]) == 7
        assert capsys.readouterr().err.endswith("[unauthorized]\n")
        monkeypatch.setenv("PICOGRAM_API_KEY", "wrong")
        monkeypatch.setenv("MY_KEY", KEY)
        assert main(["encode", "a.png", "--server", url]) == 7
        assert main(["encode", "a.png", "--server", url, "--api-key-env", "MY_KEY"]) == 0
        monkeypatch.setenv("PICOGRAM_API_KEY", KEY)
        assert main(["inspect", "a.pico", "--server", url]) == 0


@pytest.mark.parametrize("arguments", [["encode", "a.png"], ["decode", "a.pico"], ["inspect", "a.pico"]])
def test_no_torch_is_needed(url: str, arguments: list[str]) -> None:
    main(["encode", "a.png", "--server", url, "-o", "a.pico"])
    code = (
        "import sys; sys.modules['torch'] = None; from picogram.cli.main import main; "
        f"sys.exit(main({[*arguments, '--overwrite'][: 3 if arguments[0] != 'inspect' else 2]} + "
        f"['--server', {url!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_httpx2_the_command_says_what_to_install(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("picogram.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(picogram, "client", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert main(["encode", "a.png", "--server", url]) == 1
    assert 'pip install "picogram-codec[client]"' in capsys.readouterr().err


def test_a_server_writes_the_files_and_lines_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    """With the real model, the real gateway and a photograph."""
    from skimage import data

    Image.fromarray(data.astronaut()).resize((192, 192)).save("photo.png")

    def lines() -> list[str]:
        out, err = capsys.readouterr()
        assert err == ""
        return [re.sub(r"\d+\.\d\d s", "S", line) for line in out.splitlines()]

    assert main(["encode", "photo.png", "--bytes", "300", "-o", "x.pico"]) == 0
    assert main(["decode", "x.pico", "-o", "x.png"]) == 0
    here, files = lines(), [Path(name).read_bytes() for name in ("x.pico", "x.png")]
    with listening() as url:
        again = ["--overwrite", "--server", url]
        assert main(["encode", "photo.png", "--bytes", "300", "-o", "x.pico", *again]) == 0
        assert main(["decode", "x.pico", "-o", "x.png", *again]) == 0
    assert lines() == here
    assert [Path(name).read_bytes() for name in ("x.pico", "x.png")] == files
