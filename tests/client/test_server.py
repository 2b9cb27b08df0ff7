# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The client against a gateway that listens on a real port."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fake_server import Stream
from live_gateway import Workers, listening
from PIL import Image

from picogram import errors
from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.client import (
    AsyncClient,
    BodyTooLarge,
    Client,
    Encoded,
    Event,
    NotAcceptable,
    RateLimited,
    Unauthorized,
    flows,
)
from picogram.images import read_image
from picogram.results import ImageFile

KEY = "let-me-in"
FILE = serialise(Picogram(Header(Profile.BASE, 9, 9, 1), b"\x09x", {}))


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def url(workers: Workers) -> Iterator[str]:
    with listening(workers.backend, heartbeat_seconds=0.05) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=20) as client:
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """First answers come without a result."""
    monkeypatch.setattr(flows, "FIRST_WAIT", 0)


def picture(width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


def test_a_picture_goes_there_and_back(client: Client) -> None:
    caption = 'Ein "Bär"\r\n' + 2_000 * "ä"
    encoded = client.encode(picture(), bytes=9_000, profile="stc", caption=caption)
    assert (encoded.width, encoded.height, encoded.sections["latent"]) == (40, 30, 7)
    assert encoded.bpp == pytest.approx(8 * len(encoded.data) / 1200, abs=1e-5)
    assert encoded.sections.keys() == {"header", "latent", "caption"}
    assert sum(encoded.sections.values()) == len(encoded.data)
    assert encoded.warnings == ("the \u202ewords are \\odd",)
    assert encoded.caption == caption
    assert encoded.coders == {"caption": "static"}
    assert set(encoded.timings) == {"queue", "run"}
    again = client.job(encoded.job).result()
    assert (again.data, again.facts(), again.job) == (encoded.data, encoded.facts(), encoded.job)

    decoded = client.decode(encoded.data, "image/webp")
    assert isinstance(decoded.source, ImageFile)
    assert (decoded.source.media_type, decoded.size) == ("image/webp", (40, 30))
    assert decoded.image_file("image/webp") == decoded.source.data
    assert decoded.picture.size == (40, 30)
    assert decoded.caption == caption
    inspected = client.inspect(encoded.data)
    assert inspected.details["caption"].text == caption
    assert inspected.sections == {"latent": 7, "caption": encoded.sections["caption"]}
    description = client.describe(picture())
    assert (description.caption, description.objects[0].name) == ("A red dog.", "dog")
    assert description.objects[0].mask[4:].all()
    assert client.models()["profiles"] == ["base", "stc"]
    assert client.ready()


def test_many_calls_share_an_asynchronous_client(url: str, impatient: None) -> None:
    async def encode_all() -> list[Encoded]:
        async with AsyncClient(url, timeout=20) as client:
            return await asyncio.gather(*(client.encode(picture(20 + i, 20)) for i in range(12)))

    assert [found.width for found in asyncio.run(encode_all())] == list(range(20, 32))


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda c: c.encode(b"no image"), errors.UnreadableImage),
        (lambda c: c.encode(picture(), bytes=0), errors.UsageError),
        (lambda c: c.encode(picture(), bytes=9, bpp=1), errors.UsageError),
        (lambda c: c.encode(picture(), caption="words"), errors.UsageError),
        (lambda c: c.encode(picture(), priority="urgent"), errors.UsageError),
        (lambda c: c.decode(b"no file"), errors.NotAPicogram),
        (lambda c: c.decode(FILE, "text/html"), NotAcceptable),
        (lambda c: c.job("0" * 32), errors.JobUnknown),
        (lambda c: c.encode(io.BytesIO(bytes(2_000_000))), BodyTooLarge),
    ],
)
def test_errors_are_those_of_the_library(workers: Workers, action: Any, error: type) -> None:
    with (
        listening(workers.backend, max_body_bytes=1_000_000) as url,
        Client(url, timeout=20) as client,
        pytest.raises(error),
    ):
        action(client)


def test_progress_comes_while_the_job_runs(client: Client, workers: Workers) -> None:
    workers.gate.clear()
    seen = []

    def listen(event: Event) -> None:
        seen.append(event)
        if event.name == "progress":
            workers.gate.set()  # so it cannot have ended before

    client.encode(picture(), on_progress=listen)
    names = [event.name for event in seen]
    assert names[0] == "queued"
    assert {"running", "progress", "preview", "done"} <= set(names)
    assert names[-1] == "done"
    progress, preview = (next(e for e in seen if e.name == name) for name in ("progress", "preview"))
    assert (progress.data["step"], progress.data["fraction"]) == ("encoder", 0.5)
    assert read_image(base64.b64decode(preview.data["data"])).size == (2, 2)


class Unreliable(httpx2.HTTPTransport):
    """Loses the answer to the first POST, and every event stream after its first piece."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.resumed: list[str | None] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if request.method == "POST" and not self.lost:
            response.close()
            self.lost.append(request.headers["idempotency-key"])
            raise httpx2.ReadError("the answer is lost")
        if request.url.path.endswith("/events"):
            self.resumed.append(request.headers.get("last-event-id"))
            assert isinstance(response.stream, httpx2.SyncByteStream)
            first = next(iter(response.stream))
            response.close()
            return httpx2.Response(
                200, headers=response.headers, stream=Stream([first, httpx2.ReadError("cut")])
            )
        return response


def test_nothing_is_lost_or_done_twice_over_a_bad_connection(
    url: str, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picogram.client.policy.FIRST_PAUSE", 0.01)
    transport = Unreliable()
    seen: list[Any] = []
    with Client(url, timeout=20, transport=transport) as client:
        client.encode(picture(), on_progress=seen.append)
    assert workers.encoded == 1
    assert len(transport.lost) == 1
    ids = [event.id for event in seen]
    assert len(ids) == len(set(ids))
    assert seen[-1].name == "done"
    assert len(transport.resumed) > 1
    assert transport.resumed[0] is None
    assert set(transport.resumed[1:]) <= set(ids)


def test_a_submitted_job_can_be_watched_waited_for_and_given_up(client: Client, workers: Workers) -> None:
    workers.gate.clear()
    job = client.submit_encode(picture(), priority="high")
    with pytest.raises(errors.JobTimeout):
        job.wait(timeout=0.2)
    state = job.status()
    assert (state.kind, state.priority, state.final) == ("encode", "high", False)
    assert client.job(job.id).status().created_at == state.created_at
    assert job.cancel().status == "canceled"
    assert [event.name for event in job.events()][-1] == "canceled"
    with pytest.raises(errors.JobCanceled):
        job.result()
    workers.gate.set()
    other = client.submit_decode(client.encode(picture()).data, "image/jpeg")
    assert other.wait().status == "done"
    assert other.result().picture.size == (40, 30)


def test_a_listener_that_breaks_off_stops_the_job_on_the_server(client: Client, workers: Workers) -> None:
    workers.gate.clear()

    def listen(event: Event) -> None:
        if event.name == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.encode(picture(), on_progress=listen)
    assert workers.canceled.wait(10)


def test_keys_and_rate_limits(workers: Workers) -> None:
    keys = f"me:{hashlib.sha256(KEY.encode()).hexdigest()}"
    with listening(workers.backend, api_keys=keys, rate_limit="2/day") as url:
        with Client(url) as stranger:
            assert stranger.ready()
            with pytest.raises(Unauthorized):
                stranger.encode(picture())
        with Client(url, KEY) as friend:
            friend.models()
            friend.models()
            with pytest.raises(RateLimited) as caught:
                friend.models()
    assert caught.value.retry_after
    assert caught.value.retry_after > 300
