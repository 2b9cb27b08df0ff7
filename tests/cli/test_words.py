# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words as people meet them: captions given, found, shown safely, inspected, and carried into decoded PNG files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from captioners import Fails, Says
from fake_codec import feed
from PIL import Image

import picogram
from picogram.bitstream import Picogram, parse, serialise
from picogram.cli.main import main
from picogram.errors import ModelMissing
from picogram.semantics import words
from picogram.semantics.description import Region
from picogram.text.coder import TextCoder

UGLY = "line\nbreak \x1b[2J \u202e \u0634\u062c\u0631\u0629 \\ \U0001f600"
SHOWN = "line\\nbreak \\x1b[2J \\u202e \u0634\u062c\u0631\u0629 \\\\ \U0001f600"


def install(monkeypatch: pytest.MonkeyPatch, captioner: Says | Fails) -> None:
    """Make this process one with such a captioner and no language model."""
    monkeypatch.setattr(words, "_load_captioner", lambda: captioner)
    monkeypatch.setattr(words, "_load_coder", TextCoder)
    words.default_words.cache_clear()


@pytest.fixture(autouse=True)
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PICOGRAM_DEBUG", raising=False)
    install(monkeypatch, Says("A blue wall.", (Region("wall", "blue", np.ones((8, 8), np.bool_)),)))
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save("a.png")
    yield
    words.default_words.cache_clear()


def test_encode_shows_the_caption_and_what_it_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "--profile", "stc"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"a\.png -> a\.pico: \d+ bytes, \d+\.\d{4} bpp, \d+\.\d\d s", first)
    size = len(parse(Path("a.pico").read_bytes()).optional["caption"])
    assert re.fullmatch(rf"  caption \({size} bytes, \d+% of the file, static\): A blue wall\.", second)


def test_a_caption_can_be_given_or_read_from_a_file() -> None:
    Path("caption.txt").write_bytes("Zwei Wände\n".encode())
    assert main(["encode", "a.png", "--profile", "stc", "--caption-file", "caption.txt"]) == 0
    assert picogram.decode_detailed(Path("a.pico").read_bytes()).description == picogram.Description(
        "Zwei Wände"
    )
    assert main(["encode", "a.png", "--profile", "stc", "--caption", "A wall.", "--overwrite"]) == 0
    assert picogram.decode_detailed(Path("a.pico").read_bytes()).description == picogram.Description(
        "A wall."
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--caption", "a wall"], "--profile stc"),
        (["--profile", "stc", "--caption", "x" * 10_001], "10,001 characters"),
        (["--profile", "stc", "--caption", "caf\udce9"], "surrogate"),
        (["--profile", "stc", "--caption", "a", "--caption-file", "long.txt"], "at most one"),
        (["--profile", "stc", "--caption-file", "absent.txt"], "absent.txt"),
        (["--profile", "stc", "--caption-file", "long.txt"], "long.txt: more than 10,000 characters"),
        (["--profile", "stc", "--caption-file", "latin.txt"], "latin.txt: not UTF-8"),
        (["b.png", "--profile", "stc", "--caption", "a wall"], "one image only"),
    ],
)
def test_bad_captions_are_usage_errors(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("long.txt").write_text("x" * 50_000)
    Path("latin.txt").write_bytes(b"caf\xe9")
    assert main(["encode", "a.png", *options]) == 2
    assert told in capsys.readouterr().err
    assert not Path("a.pico").exists()


def test_decode_tells_the_words_aside_and_puts_them_into_png(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "--profile", "stc", "--caption", UGLY + "\0"]) == 0
    capsys.readouterr()
    assert main(["decode", "a.pico", "-o", "back.png"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == f"  caption: {SHOWN}\\x00\n"
    with Image.open("back.png") as image:
        image.load()
        assert image.text == {  # type: ignore[attr-defined]
            "Software": "picogram; partly imagined",
            "Description": UGLY + "\ufffd",
        }
    picture = picogram.decode(Path("a.pico").read_bytes())
    assert np.array_equal(np.asarray(Image.open("back.png")), np.asarray(picture))


def test_damaged_words_are_a_warning_and_the_picture_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "--profile", "stc", "-o", "x.pico"]) == 0
    data = Path("x.pico").read_bytes()
    Path("x.pico").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    capsys.readouterr()
    assert main(["decode", "x.pico"]) == 0
    assert capsys.readouterr().err == "warning: x.pico: the caption was left out: it is damaged\n"
    with Image.open("x.png") as image:
        image.load()
        assert "Description" not in image.text  # type: ignore[attr-defined]
    assert main(["inspect", "x.pico"]) == 0
    assert "cannot be read: it is damaged" in capsys.readouterr().out


def test_inspect_shows_words_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "--profile", "stc", "--caption", UGLY, "-o", "x.pico"]) == 0
    capsys.readouterr()
    assert main(["inspect", "x.pico"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("  caption "))
    assert re.fullmatch(r"  caption +\d+ bytes, \d+ bits, \d\.\d{4} bpp, \w+", lines[place])
    assert lines[place + 1].strip() == SHOWN
    assert main(["inspect", "--json", "x.pico"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["details"]["caption"]["text"] == UGLY
    assert found["checks"] == {"picture": "ok", "words": "ok"}


def test_caption_describes_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", "a.png"]) == 0
    assert capsys.readouterr().out == "a.png\n  caption: A blue wall.\n  object: wall: blue\n"
    feed(monkeypatch, Path("a.png").read_bytes())
    assert main(["caption", "-", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["objects"] == [{"name": "wall", "detail": "blue", "mask": ["#" * 8] * 8}]
    assert (found["file"], found["caption"]) == ("-", "A blue wall.")


def test_a_captioner_that_fails_is_a_warning_and_a_missing_one_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Fails(RuntimeError("no luck")))
    assert main(["encode", "a.png", "--profile", "stc"]) == 0
    assert capsys.readouterr().err == (
        "warning: a.png: the captioner failed (no luck): the file carries no caption\n"
    )
    assert picogram.inspect(Path("a.pico").read_bytes()).profile == "base"
    install(monkeypatch, Fails(ModelMissing("run `picogram models pull text`")))
    for command in (["encode", "--profile", "stc", "--overwrite"], ["caption"]):
        assert main([*command, "a.png"]) == 5
        assert "picogram models pull text" in capsys.readouterr().err


def test_captions_can_be_shown_where_the_terminal_has_no_such_letters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out.txt").open("w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["encode", "a.png", "--profile", "stc", "--caption", "caf\xe9"]) == 0
    assert (tmp_path / "out.txt").read_text().rstrip().endswith(": caf\\xe9")


def test_inspection_says_what_each_section_holds_and_costs() -> None:
    data = picogram.encode(Path("a.png"), profile="stc")
    found = picogram.inspect(data)
    caption = found.details["caption"]
    assert (caption.text, caption.coder, caption.problem) == ("A blue wall.", "static", None)
    assert caption.bits == 8 * caption.bytes == 8 * found.sections["caption"]
    assert caption.bpp == pytest.approx(caption.bits / (64 * 48))
    assert found.details["latent"].coder == "latent-2"
    assert found.header_bytes + sum(found.sections.values()) == len(data)


def test_inspection_says_why_words_cannot_be_read() -> None:
    data = picogram.encode(Path("a.png"), profile="stc")
    damaged = picogram.inspect(data[:-1] + bytes([data[-1] ^ 1]))
    assert damaged.checks == {"picture": "ok", "words": "damaged"}
    assert damaged.sections == picogram.inspect(data).sections
    assert (damaged.details["caption"].text, damaged.details["caption"].problem) == (None, "it is damaged")
    file = parse(data)
    for_a_model = serialise(Picogram(file.header, file.latent, {"caption": b""}))
    assert "picogram models pull text" in str(picogram.inspect(for_a_model).details["caption"].problem)
