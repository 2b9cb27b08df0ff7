# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The client against a scripted server: what it sends, what it makes of answers, what it tries again."""

from __future__ import annotations

import email.utils
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fake_server import (
    ENCODED,
    FILE,
    JOB,
    URL,
    Clock,
    FakeServer,
    Stream,
    clock,
    encoded,
    linked,
    problem,
    server,
    view,
)
from PIL import Image

import picogram
from picogram import errors
from picogram.client import (
    AsyncClient,
    BadAnswer,
    BodyTooLarge,
    Client,
    ConnectionFailed,
    NotAcceptable,
    NotReady,
    RateLimited,
    ServerError,
    Unauthorized,
    UnsupportedMediaType,
)
from picogram.images import read_image

__all__ = ["clock", "server"]  # fixtures

BLIP = httpx2.ConnectError("connection refused")
LIBRARY = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.PicogramError)
]


def encode(client: Any) -> Any:
    return client.encode(b"photo", bytes=800)


# --- what is sent, and what comes back ------------------------------------------------------------------------------


def test_encode_sends_the_image_and_reads_what_the_file_cost(server: FakeServer) -> None:
    words = {"description": {"caption": "Höhle\n", "objects": []}, "coders": {"caption": "static"}}
    said = linked(warning="the \\u202eobjects \\\\ are \\xe4out")
    server.replies = [said, view("done", result={"profile": "stc", **words})]
    found = server.run(
        lambda c: c.encode(b"photo", bpp=0.1, quality=None, profile="stc", priority="high"), api_key="k3y"
    )
    request, asked = server.requests
    assert (asked.method, str(asked.url)) == ("GET", f"{URL}/v1/jobs/{JOB}")
    assert str(request.url) == f"{URL}/v1/encode?bpp=0.1&profile=stc"
    assert request.content == b"photo"
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["user-agent"] == f"picogram/{picogram.__version__}"
    assert request.headers["x-picogram-priority"] == "high"
    assert request.headers["prefer"] == "respond-async, wait=10"
    assert len(request.headers["idempotency-key"]) == 36
    assert (found.data, found.width, found.height, found.bpp) == (FILE, 88, 8, 8 * len(FILE) / 704)
    assert found.sections == {"header": len(FILE) - 7, "latent": 5, "caption": 2}
    assert found.coders == {"caption": "static"}
    assert found.caption == "Höhle\n"
    assert found.warnings == ("the \u202eobjects \\ are äout",)
    assert found.timings == {"queue": 0.0125, "run": 0.25}
    assert found.job == JOB


def test_every_call_has_a_key_of_its_own(server: FakeServer) -> None:
    server.replies = [encoded()]
    server.run(encode)
    server.replies = [encoded()]
    server.run(encode)
    first, second = (request.headers["idempotency-key"] for request in server.requests)
    assert first != second


def test_a_caption_goes_into_a_form_whatever_is_in_it(server: FakeServer) -> None:
    server.replies = [encoded()]
    caption = 'Ein "Bär"\r\n--x\n' + 9_000 * "ä"
    server.run(lambda c: c.encode(b"photo", profile="stc", caption=caption))
    (request,) = server.requests
    assert dict(request.url.params) == {"profile": "stc"}
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="caption"\r\n\r\n' + caption.encode() + b"\r\n" in request.content
    assert b'name="image"; filename="image"' in request.content


def test_images_of_every_kind_can_be_sent(server: FakeServer, tmp_path: Path) -> None:
    picture = Image.new("CMYK", (3, 2), "red")
    path = tmp_path / "photo.tiff"
    picture.save(path)
    sources: list[Any] = [str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes())]
    for source in [*sources, picture, np.full((2, 3, 3), 7, np.uint8)]:

        def send(client: Any, source: Any = source) -> Any:
            return client.encode(source)

        server.replies.append(encoded())
        server.run(send)
    assert {request.content for request in server.requests[:4]} == {path.read_bytes()}
    assert read_image(server.requests[4].content).tobytes() == read_image(path).tobytes()
    assert set(read_image(server.requests[5].content).tobytes()) == {7}


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda c: c.encode("no such file"), errors.UsageError),
        (lambda c: c.encode(b""), errors.UnreadableImage),
        (lambda c: c.encode(bytes(64 * 2**20 + 1)), errors.ImageTooLarge),
        (lambda c: c.encode(b"x", profile="stc", caption=10_001 * "a"), errors.UsageError),
        (lambda c: c.encode(b"x", profile="stc", caption="\ud800"), errors.UsageError),
        (lambda c: c.encode(5), errors.UsageError),
        (lambda c: c.decode(b""), errors.NotAPicogram),
        (lambda c: c.decode("a.pico"), errors.UsageError),
        (lambda c: c.inspect(bytes(16 * 2**20 + 1)), errors.LimitExceeded),
    ],
)
def test_what_no_server_would_take_is_not_sent(server: FakeServer, action: Any, error: type) -> None:
    with pytest.raises(error):
        server.run(action)
    assert server.requests == []


def test_decode_gives_the_file_and_the_picture_in_it(server: FakeServer) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), "blue").save(buffer, "WEBP")
    headers = {"content-type": "image/webp", "x-picogram-width": "5", "x-picogram-height": "4"}
    server.replies = [httpx2.Response(200, headers=headers, content=buffer.getvalue())]
    found = server.run(lambda c: c.decode(b"PICO", "image/webp"))
    (request,) = server.requests
    assert (request.url.path, request.headers["accept"]) == ("/base/v1/decode", "image/webp")
    assert request.headers["content-type"] == "application/vnd.picogram"
    assert (found.source.data, found.source.media_type) == (buffer.getvalue(), "image/webp")
    assert found.image_file("image/webp") is found.source.data
    assert (found.size, found.caption) == ((5, 4), None)
    assert found.picture.size == (5, 4)
    assert found.picture is found.picture


def test_models_and_readiness(server: FakeServer, clock: Clock) -> None:
    server.replies = [httpx2.Response(200, json={"profiles": ["base"]})]
    assert server.run(lambda c: c.models()) == {"profiles": ["base"]}
    server.replies = [httpx2.Response(200, json={})]
    assert server.run(lambda c: c.ready()) is True
    for reply in (problem(503, "not-ready"), problem(503, "broker-unavailable"), BLIP):
        server.replies = [reply]
        assert server.run(lambda c: c.ready()) is False
    assert clock.pauses == []


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", LIBRARY)
def test_problems_become_the_librarys_errors(server: FakeServer, cls: type[errors.PicogramError]) -> None:
    server.replies = [problem(422, cls.slug, "the image is odd")]
    with pytest.raises(errors.PicogramError) as caught:
        server.run(encode, retries=0)
    assert type(caught.value) is cls
    assert str(caught.value) == "the image is odd"
    assert isinstance(caught.value.__cause__, ServerError)
    assert caught.value.__cause__.status == 422
    assert caught.value.__cause__.problem["title"] == "T"


@pytest.mark.parametrize(
    ("status", "slug", "cls"),
    [
        (401, "unauthorized", Unauthorized),
        (406, "not-acceptable", NotAcceptable),
        (413, "body-too-large", BodyTooLarge),
        (415, "unsupported-media-type", UnsupportedMediaType),
        (429, "rate-limited", RateLimited),
        (503, "not-ready", NotReady),
        (418, "teapot", ServerError),
    ],
)
def test_problems_of_the_http_layer_say_what_they_are(
    server: FakeServer, status: int, slug: str, cls: type[ServerError]
) -> None:
    server.replies = [problem(status, slug, retry_after="7")]
    with pytest.raises(ServerError) as caught:
        server.run(encode, retries=0)
    error = caught.value
    assert type(error) is cls
    assert (error.status, error.slug, error.retry_after, error.exit_code) == (status, slug, 7.0, 7)
    assert error.problem["detail"] == "no luck"


def test_the_slug_of_a_strange_problem_stays_with_its_error(server: FakeServer) -> None:
    server.replies = [problem(418, "teapot")]
    with pytest.raises(ServerError):
        server.run(encode)
    assert ServerError.slug == ServerError("x").slug == "server"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (httpx2.Response(200, content=b"<html>"), "is this a Picogram server"),
        (encoded(b"PICOGRAM..."), "cannot be read"),
        (httpx2.Response(200, headers={"content-type": ENCODED["content-type"]}), "cannot be read"),
        (httpx2.Response(302, headers={"location": "https://elsewhere/"}), "https://elsewhere/"),
        (httpx2.Response(404, content=b"nginx"), "404 Not Found"),
        (
            httpx2.Response(404, headers={"content-type": "application/problem+json"}, content=b"["),
            "not JSON",
        ),
        (httpx2.Response(202, json={"id": JOB}), "no kind"),
    ],
)
def test_answers_that_make_no_sense_are_errors(
    server: FakeServer, reply: httpx2.Response, message: str
) -> None:
    server.replies = [reply]
    with pytest.raises(ServerError, match=message):
        server.run(encode)
    assert len(server.requests) == 1


def test_answers_end_at_the_limit(server: FakeServer) -> None:
    endless = httpx2.Response(200, headers=ENCODED, stream=Stream([bytes(600)] * 1_000_000))
    server.replies = [endless]
    with pytest.raises(BadAnswer, match="1,000 bytes"):
        server.run(encode, max_answer_bytes=1000)


@pytest.mark.parametrize(
    "url", ["pico.test", "ftp://pico.test", "http://", "http://me:secret@pico.test", "http://a?b=c", 5]
)
def test_bad_urls_are_refused(url: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(errors.UsageError):
            kind(url)


@pytest.mark.parametrize("key", ["", "a b", "bär", "a\r\nX-Evil: 1"])
def test_bad_keys_are_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        Client(URL, key)
    assert not key or key not in str(caught.value)


# --- trying again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        BLIP,
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout(""),
        httpx2.RemoteProtocolError("closed"),
        problem(503, "queue-full"),
        problem(503, "broker-unavailable"),
        problem(503, "overloaded"),
        problem(429, "rate-limited"),
        httpx2.Response(502),
        httpx2.Response(503, content=b"no backend"),
        httpx2.Response(504),
    ],
)
def test_passing_trouble_is_tried_again_as_the_same_request(
    server: FakeServer, clock: Clock, reply: httpx2.Response | Exception
) -> None:
    server.replies = [reply, encoded()]
    assert server.run(lambda c: c.encode(b"photo", profile="stc", caption="a")).data == FILE
    first, second = server.requests
    assert first.content == second.content
    assert first.headers == second.headers
    assert clock.pauses == [0.5]


@pytest.mark.parametrize(
    "reply",
    [
        problem(422, "usage"),
        problem(422, "idempotency-conflict"),
        problem(401, "unauthorized"),
        problem(413, "body-too-large"),
        problem(503, "model-missing"),
        problem(504, "job-timeout"),
        problem(410, "job-canceled"),
        problem(500, "internal"),
        httpx2.Response(500),
    ],
)
def test_what_would_only_fail_again_is_not(server: FakeServer, clock: Clock, reply: httpx2.Response) -> None:
    server.replies = [reply]
    with pytest.raises(errors.PicogramError):
        server.run(encode)
    assert clock.pauses == []


def test_pauses_grow_and_tries_end(server: FakeServer, clock: Clock) -> None:
    server.replies = [BLIP] * 9
    with pytest.raises(ConnectionFailed, match="connection refused"):
        server.run(encode, retries=8)
    assert clock.pauses == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_jitter_spreads_pauses_over_their_whole_length(
    server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr("picogram.client.policy.random.random", lambda: 0.25)
    server.replies = [BLIP, BLIP, encoded()]
    server.run(encode)
    assert clock.pauses == [0.125, 0.25]


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured(server: FakeServer, clock: Clock, date: bool) -> None:
    value = email.utils.formatdate(time.time() + 30, usegmt=True) if date else "30"
    server.replies = [problem(503, "queue-full", retry_after=value), encoded()]
    server.run(encode)
    assert clock.pauses == [pytest.approx(30.5, abs=3)]
    assert date or clock.pauses == [30.5]


def test_retry_after_beyond_the_time_of_the_call_ends_it_at_once(server: FakeServer, clock: Clock) -> None:
    server.replies = [problem(503, "queue-full", retry_after="61")]
    with pytest.raises(errors.QueueFull):
        server.run(encode, timeout=60)
    assert clock.pauses == []


def test_a_call_ends_when_its_time_is_up(server: FakeServer, clock: Clock) -> None:
    server.replies = [BLIP] * 4
    with pytest.raises(ConnectionFailed):
        server.run(encode, timeout=5, retries=100)
    assert clock.pauses == [0.5, 1, 2]


def test_answers_that_trickle_end_with_the_time_of_the_call(server: FakeServer, clock: Clock) -> None:
    drops = [piece for _ in range(100) for piece in (b"x", lambda: clock.sleep(1))]
    server.replies = [httpx2.Response(200, headers=ENCODED, stream=Stream(drops))]
    with pytest.raises(errors.JobTimeout):
        server.run(encode, timeout=20)
    assert len(clock.pauses) == 20


# --- the package ----------------------------------------------------------------------------------------------------


def test_clients_load_only_when_they_are_asked_for() -> None:
    code = (
        "import sys, picogram; before = 'httpx2' in sys.modules; picogram.Client('http://a'); "
        "print(before, 'httpx2' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True False\n"
    with pytest.raises(AttributeError, match="Klient"):
        picogram.Klient  # noqa: B018


def test_without_httpx2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("picogram.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(picogram, "client", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ModuleNotFoundError, match=r"picogram-codec\[client\]"):
        picogram.Client  # noqa: B018
