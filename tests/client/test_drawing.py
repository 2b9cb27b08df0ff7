# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the client can say about drawing, and what it hears on the way: against a scripted server, in both colours."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest
from fake_server import JOB, FakeServer, event, server, stream, view
from PIL import Image

from picogram import errors
from picogram.client import BadAnswer, Event
from picogram.images import write_image
from picogram.results import Drawing

__all__ = ["server"]  # a fixture

PNG = write_image(Image.new("RGB", (5, 4), "blue"), "image/png")
DRAWN = {"content-type": "image/png", "x-picogram-width": "5", "x-picogram-height": "4"}
PREVIEW = base64.b64encode(write_image(Image.new("RGB", (3, 2), "red"), "image/webp")).decode()


def drawn(**headers: str) -> httpx2.Response:
    more = {f"x-picogram-{name}": value for name, value in headers.items()}
    return httpx2.Response(200, headers=DRAWN | more, content=PNG)


def previewing(data: str = PREVIEW) -> list[Any]:
    told = [
        event("1", "queued"),
        event("2", "preview", step="decoder", media_type="image/webp", data=data),
        event("3", "progress", step="decoder", fraction=0.5),
        event("4", "done"),
    ]
    return [view(), stream(*told), drawn(steps="2", seed="7")]


def test_what_is_said_about_drawing_goes_into_the_query(server: FakeServer) -> None:
    server.replies = [drawn(), drawn(steps="3", seed="4294967295"), drawn(steps="0", seed="0")]
    found = [
        server.run(lambda c: c.decode(b"PICO")),
        server.run(lambda c: c.decode(b"PICO", steps=3, guidance=1.5, seed=4294967295, priority="high")),
        server.run(lambda c: c.decode(b"PICO", steps=0, guidance=None)),
    ]
    assert [dict(request.url.params) for request in server.requests] == [
        {},
        {"steps": "3", "guidance": "1.5", "seed": "4294967295"},
        {"steps": "0"},
    ]
    assert server.requests[1].headers["x-picogram-priority"] == "high"
    assert [each.drawing for each in found] == [Drawing(), Drawing(steps=3, seed=4294967295), Drawing()]


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 51},
        {"steps": -1},
        {"steps": 1.5},
        {"steps": True},
        {"guidance": 21},
        {"guidance": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": "x"},
    ],
)
def test_what_no_server_would_draw_is_not_sent(server: FakeServer, options: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError):
        server.run(lambda c: c.decode(b"PICO", **options))
    assert server.requests == []


def test_an_answer_with_strange_steps_is_a_bad_one(server: FakeServer) -> None:
    for strange in ({"steps": "many"}, {"guidance": "much"}, {"width": "wide"}):
        server.replies = [drawn(**strange)]
        with pytest.raises(BadAnswer, match="cannot be read: "):
            server.run(lambda c: c.decode(b"PICO"))
    server.replies = [httpx2.Response(200, headers={"content-type": "image/png"}, content=PNG)]
    with pytest.raises(BadAnswer, match="no x-picogram"):
        server.run(lambda c: c.decode(b"PICO"))


def test_all_that_is_said_of_the_drawing_is_read(server: FakeServer) -> None:
    server.replies = [drawn(stages="2", steps="3", guidance="1.5", seed="7", model="sd-turbo")]
    assert server.run(lambda c: c.decode(b"PICO")).drawing == Drawing(2, 3, 1.5, 7, "sd-turbo")


def test_the_base_picture_is_heard_of_before_the_end(server: FakeServer) -> None:
    server.replies = previewing()
    heard: list[Any] = []
    found = server.run(lambda c: c.decode(b"PICO", on_preview=heard.append, on_progress=heard.append))
    preview, others = heard[1], [each for each in heard if isinstance(each, Event)]
    assert isinstance(preview, Image.Image)
    assert (preview.mode, preview.size) == ("RGB", (3, 2))
    assert [each.name for each in others] == ["queued", "progress", "done"]
    assert (found.drawing.steps, found.drawing.seed) == (2, 7)


def test_previews_alone_can_be_heard_and_without_a_listener_they_are_events(server: FakeServer) -> None:
    server.replies = previewing()
    shown: list[Image.Image] = []
    server.run(lambda c: c.decode(b"PICO", on_preview=shown.append))
    assert [each.size for each in shown] == [(3, 2)]
    server.replies = previewing()
    told: list[Event] = []
    server.run(lambda c: c.decode(b"PICO", on_progress=told.append))
    assert [each.name for each in told] == ["queued", "preview", "progress", "done"]


def test_a_listener_that_raises_gives_the_job_up(server: FakeServer) -> None:
    server.replies = [*previewing()[:2], view("canceled")]

    def refuse(picture: Image.Image) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        server.run(lambda c: c.decode(b"PICO", on_preview=refuse))
    assert server.asked[-1] == f"DELETE /v1/jobs/{JOB}"


@pytest.mark.parametrize("data", ["", "%%%", base64.b64encode(b"no picture").decode()])
def test_an_unreadable_preview_is_a_bad_answer(server: FakeServer, data: str) -> None:
    server.replies = [*previewing(data)[:2], view("canceled")]
    with pytest.raises(BadAnswer, match="preview"):
        server.run(lambda c: c.decode(b"PICO", on_preview=lambda picture: None))


async def test_coroutine_functions_are_awaited() -> None:
    from picogram.client import AsyncClient

    fake = FakeServer("async")
    fake.replies = previewing()
    seen: list[tuple[int, int]] = []

    async def show(picture: Image.Image) -> None:
        seen.append(picture.size)

    transport = httpx2.MockTransport(fake._reply)
    async with AsyncClient("http://pico.test", transport=transport) as client:
        await client.decode(b"PICO", on_preview=show)
    assert seen == [(3, 2)]
