# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captions that encoders listen to and what matters most, in clients of both kinds and on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import JOB, FakeServer, encoded, linked, server, view
from hearing_words import HearingWords
from live_gateway import Workers, listening
from PIL import Image
from skimage import data

import picogram
from picogram.cli.focus_arguments import given_focus, mask_of_weights
from picogram.cli.main import main
from picogram.client import BadAnswer
from picogram.errors import UsageError
from picogram.latent import focus
from picogram.ranges import MAX_MAP_SIDE
from picogram.semantics.description import Description
from picogram.semantics.plain import plain_mask

__all__ = ["server"]  # a fixture

MASK = np.tri(8, dtype=np.bool_)
BRIGHT_CORNER = np.pad(np.full((3, 5), 200, np.uint8), ((0, 6), (0, 10)))


class Says:
    """Describes all pictures alike."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [Description("A r\u00f6d boat.\n")] * len(pictures)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> HearingWords:
    """The words of this process, and of servers in it."""
    words = HearingWords(Says())
    for place in ("picogram.api.default_words", "picogram_lmm.lmm_handler.default_words"):
        monkeypatch.setattr(place, lambda: words)
    return words


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def url(workers: Workers) -> Iterator[str]:
    with listening(workers.backend) as url:
        yield url


@pytest.fixture(autouse=True)
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PICOGRAM_DEBUG", raising=False)
    monkeypatch.delenv("PICOGRAM_API_KEY", raising=False)
    Image.fromarray(data.astronaut()).resize((96, 64)).save("a.png")
    Image.fromarray(BRIGHT_CORNER).save("corner.png")


def masked(request_body: bytes, name: str) -> Any:
    """What a field of a form holds."""
    found = re.search(rb'name="%s"\r\n\r\n(.*?)\r\n--' % name.encode(), request_body, re.DOTALL)
    return found and found[1].decode()


# --- clients ------------------------------------------------------------------------------------------------


def test_what_was_heard_is_read(server: FakeServer) -> None:
    said = [view("done", result={"heard": heard}) for heard in ("H\u00f6hle\n", 5)]
    server.replies = [linked(), said[0], encoded(), linked(), said[1]]
    assert server.run(lambda c: c.encode(b"photo", profile="taco", caption="a")).heard == "H\u00f6hle\n"
    assert server.run(lambda c: c.encode(b"photo", profile="taco", caption="")).heard is None
    with pytest.raises(BadAnswer):
        server.run(lambda c: c.encode(b"photo", profile="taco"))
    posts = [request for request in server.requests if request.method == "POST"]
    assert [masked(request.content, "caption") for request in posts] == ["a", "", None]
    assert server.asked == [
        *("POST /v1/encode", f"GET /v1/jobs/{JOB}"),
        "POST /v1/encode",
        *("POST /v1/encode", f"GET /v1/jobs/{JOB}"),
    ]


def test_focus_and_mask_are_sent_in_a_form(server: FakeServer) -> None:
    server.replies = [encoded(), encoded(), encoded()]
    server.run(lambda c: c.encode(b"photo", bytes=300, focus='the "red"\u00e4 boat'))
    server.run(lambda c: c.encode(b"photo", profile="stc", caption="", focus_mask=MASK))
    server.run(lambda c: c.encode(b"photo", focus=None, focus_mask=None))
    named, drawn, plain = server.requests
    assert (masked(named.content, "focus"), dict(named.url.params)) == (
        'the "red"\u00e4 boat',
        {"bytes": "300"},
    )
    assert json.loads(masked(drawn.content, "focus_mask")) == plain_mask(MASK)
    assert (plain.content, dict(plain.url.params)) == (b"photo", {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"focus": "a", "focus_mask": MASK}, "at most one"),
        ({"focus": " "}, "no words"),
        ({"focus": "a" * 201}, "201"),
        ({"focus": "\ud800"}, "surrogate"),
        ({"focus_mask": MASK[:7]}, "8, 16, 32 or 64"),
        ({"focus_mask": np.tri(12, dtype=np.bool_)}, "8, 16, 32 or 64"),
        ({"focus_mask": MASK[0]}, "square array of bools"),
        ({"focus_mask": MASK.astype(float)}, "square array of bools"),
        ({"focus_mask": np.zeros((8, 8), np.bool_)}, "tells nothing"),
        ({"focus_mask": np.ones((8, 8), np.bool_)}, "tells nothing"),
    ],
)
def test_a_focus_that_no_server_takes_is_not_sent(
    server: FakeServer, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        server.run(lambda c: c.encode(b"photo", **options))
    assert server.requests == []


# --- the command ----------------------------------------------------------------------------------------------


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert err == ""
    return [re.sub(r"\d+\.\d\d s", "S", line) for line in out.splitlines()]


@pytest.mark.parametrize("given", [None, "My b\u00f6at.", ""])
def test_the_command_tells_what_the_encoder_listened_to(
    words: HearingWords, capsys: pytest.CaptureFixture[str], given: str | None
) -> None:
    options = ["--profile", "taco", "--bytes", "300", *([] if given is None else ["--caption", given])]
    assert main(["encode", "a.png", *options]) == 0
    here, file = lines(capsys), Path("a.pico").read_bytes()
    heard = {None: "A r\u00f6d boat.\\n", "": None}.get(given, given)
    assert here[1:] == ([] if heard is None else [f"  listened to: {heard}"])
    assert file == picogram.encode("a.png", bytes=300, profile="taco", caption=given, words=words)
    with listening() as url:
        assert main(["encode", "a.png", *options, "--overwrite", "--server", url]) == 0
    assert (lines(capsys), Path("a.pico").read_bytes()) == (here, file)


def test_a_long_caption_that_was_given_is_shown_whole(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    caption = 2_000 * "\u00e4"
    assert main(["encode", "a.png", "--profile", "taco", "--caption", caption, "--server", url]) == 0
    assert capsys.readouterr().out.endswith(f"\n  listened to: {caption}\n")


def test_words_of_a_focus_serve_many_pictures(words: HearingWords) -> None:
    Image.open("a.png").rotate(90).save("b.png")
    assert main(["encode", "a.png", "b.png", "--focus", "the red boat", "--bytes", "300"]) == 0
    for name in ("a", "b"):
        expected = picogram.encode(f"{name}.png", bytes=300, focus="the red boat", words=words)
        assert Path(f"{name}.pico").read_bytes() == expected != picogram.encode(f"{name}.png", bytes=300)


def test_a_mask_is_an_image_that_is_bright_where_it_matters() -> None:
    assert main(["encode", "a.png", "--focus-mask", "corner.png", "--bytes", "300"]) == 0
    weights = BRIGHT_CORNER.astype(np.float32) / np.float32(255)
    assert Path("a.pico").read_bytes() == picogram.encode("a.png", bytes=300, focus=weights)
    with listening() as url:
        options = ["--focus-mask", "corner.png", "--bytes", "300", "--server", url]
        assert main(["encode", "a.png", "-o", "b.pico", *options]) == 0
    mask = mask_of_weights(weights)
    assert Path("b.pico").read_bytes() == picogram.encode("a.png", bytes=300, focus=mask)


def test_both_ways_reach_a_server(url: str, workers: Workers) -> None:
    assert main(["encode", "a.png", "--focus", "the boat", "--server", url]) == 0
    assert main(["encode", "a.png", "--focus-mask", "corner.png", "--overwrite", "--server", url]) == 0
    named, drawn = workers.options
    assert (named["focus"], named["focus_mask"]) == ("the boat", None)
    assert (drawn["focus"], len(drawn["focus_mask"])) == (None, 32)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--focus", "a", "--focus-mask", "corner.png"], "at most one of --focus and --focus-mask"),
        (["--focus", " "], "no words"),
        (["--focus", "a" * 201], "201"),
        (["--focus-mask", "absent.png"], "absent.png: "),
        (["--focus-mask", "text.png"], "text.png: "),
        (["--focus-mask", "black.png"], "black.png: nothing matters most"),
        (["--focus-mask", "long.png"], "long.png: "),
        (["b.png", "--focus-mask", "corner.png"], "one image only"),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_focus_of_no_use_is_a_usage_error(
    options: list[str], told: str, elsewhere: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.png").write_text("text")
    Image.new("L", (8, 8)).save("black.png")
    Image.linear_gradient("L").resize((MAX_MAP_SIDE + 1, 2)).save("long.png")
    server = ["--server", "http://127.0.0.1:9"] if elsewhere else []
    assert main(["encode", "a.png", *options, *server]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .* \[usage\]\n", err)
    assert told in err
    assert not Path("a.pico").exists()


def test_masks_may_be_as_large_as_the_library_takes_them() -> None:
    Image.linear_gradient("L").resize((2, MAX_MAP_SIDE)).save("tall.png")
    weights = given_focus(None, Path("tall.png"))
    assert isinstance(weights, np.ndarray)
    assert focus.Focus.of(weights).weights.shape == (MAX_MAP_SIDE, 2)


def test_a_server_gets_the_cells_that_matter() -> None:
    weights = np.zeros((200, 300), np.float32)
    weights[:100, 150:] = 0.5
    weights[150, 10] = 1  # too little to count
    mask = mask_of_weights(weights)
    expected = np.zeros((32, 32), np.bool_)
    expected[:16, 16:] = True
    assert np.array_equal(mask, expected)
    with pytest.raises(UsageError, match="tells a server nothing"):
        mask_of_weights(np.linspace(0.6, 1, 64, dtype=np.float32).reshape(8, 8))


def test_help_says_what_a_focus_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    assert "--focus-mask" in out
    assert "Words for what matters most" in out


def test_a_focus_for_a_server_needs_no_torch(url: str) -> None:
    arguments = ["encode", "a.png", "--focus-mask", "corner.png", "--server", url]
    code = (
        "import sys; sys.modules['torch'] = None; from picogram.cli.main import main; "
        f"sys.exit(main({arguments}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
