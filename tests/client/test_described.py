# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words of a result, which a link leads to: they are read whole, and where they are gone the result comes without."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
from fake_server import (
    FILE,
    JOB,
    LINK,
    Clock,
    FakeServer,
    clock,
    encoded,
    event,
    linked,
    problem,
    server,
    stream,
    view,
)
from PIL import Image

from picogram import Encoded, errors
from picogram.client import BadAnswer
from picogram.images import write_image
from picogram.results import Decoded, Drawing, ImageFile
from picogram.semantics.description import Description, Region
from picogram.semantics.plain import plain_description

__all__ = ["clock", "server"]  # fixtures

ASK = f"GET /v1/jobs/{JOB}"
SEEN = Description(1_500 * "H\u00f6hle\n", (Region("dog", "wet", np.tri(8, dtype=np.bool_)),))
SAID = {"description": plain_description(SEEN), "coders": {"caption": "static"}, "heard": "a boat"}
PNG = write_image(Image.new("RGB", (5, 4), "blue"), "image/png")
DRAWN = {"content-type": "image/png", "x-picogram-width": "5", "x-picogram-height": "4"} | LINK


def encode(client: Any) -> Any:
    return client.encode(b"photo", profile="stc")


def test_words_of_any_length_come_whole(server: FakeServer) -> None:
    server.replies = [linked(), view("done", result=SAID)]
    found = server.run(encode)
    assert len((found.caption or "").encode()) > 4096
    assert (found.description, found.coders, found.heard) == (SEEN, {"caption": "static"}, "a boat")
    assert (found.data, found.warnings, server.asked) == (FILE, (), ["POST /v1/encode", ASK])


def test_a_picture_comes_with_all_that_its_job_says(server: FakeServer) -> None:
    drawing = Drawing(2, 3, 1.5, 7, "sd-turbo")
    facts = Decoded(ImageFile(PNG, "image/png", (5, 4)), SEEN, drawing).facts()
    answer = httpx2.Response(200, headers=DRAWN | {"x-picogram-job": JOB}, content=PNG)
    server.replies = [answer, view("done", result={"media_type": "image/png", **facts})]
    found = server.run(lambda client: client.decode(b"PICO"))
    assert (found.description, found.drawing, found.caption) == (SEEN, drawing, SEEN.caption)
    assert found.facts() == facts


def test_what_a_server_says_is_what_was_said_to_it(server: FakeServer) -> None:
    original = Encoded(FILE, SEEN, {"caption": "static"}, "a boat")
    server.replies = [linked(), view("done", result=original.facts())]
    assert server.run(encode).facts() == original.facts()


def test_without_a_link_nothing_more_is_asked(server: FakeServer) -> None:
    server.replies = [encoded()]
    found = server.run(encode)
    assert (found.description, found.heard, server.asked) == (None, None, ["POST /v1/encode"])


def test_a_job_that_was_watched_is_asked_for_its_words_once(server: FakeServer) -> None:
    server.replies = [view(), stream(event("1", "done")), linked(), view("done", result=SAID)]
    assert server.run(encode).description == SEEN
    assert server.asked == ["POST /v1/encode", f"{ASK}/events", f"{ASK}/result", ASK]


@pytest.mark.parametrize(
    "reply",
    [
        problem(404, "job-unknown"),
        problem(401, "unauthorized"),
        problem(500, "internal"),
        httpx2.Response(500),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_a_job_that_is_gone_costs_the_words_and_not_the_result(
    server: FakeServer, reply: httpx2.Response, watched: bool
) -> None:
    before = [view(), stream(event("1", "done"))] if watched else []
    server.replies = [*before, linked(warning="odd"), reply]
    found = server.run(encode)
    assert (found.data, found.description, found.heard) == (FILE, None, None)
    assert found.warnings[0] == "odd"
    (warning,) = found.warnings[1:]
    assert warning.startswith("the server no longer tells the words: ")


def test_a_server_that_is_gone_meanwhile_costs_the_words_and_not_the_result(
    server: FakeServer, clock: Clock
) -> None:
    server.replies = [linked(), *[httpx2.ConnectError("gone")] * 3]
    found = server.run(encode, retries=2)
    assert (found.data, found.description, len(found.warnings)) == (FILE, None, 1)
    assert clock.pauses == [0.5, 1]


def test_time_that_is_up_meanwhile_costs_the_words_and_not_the_result(
    server: FakeServer, clock: Clock
) -> None:
    def late(request: httpx2.Request) -> httpx2.Response:
        clock.sleep(31)
        return problem(503, "overloaded")

    server.replies = [linked(), late]
    assert server.run(encode, timeout=30).data == FILE


def test_a_job_whose_result_is_gone_costs_the_words_and_not_the_result(server: FakeServer) -> None:
    server.replies = [linked(), view("done")]
    found = server.run(encode)
    assert (found.data, found.warnings) == (FILE, ("the server no longer tells the words",))


@pytest.mark.parametrize(
    "said",
    [
        [1],
        "words",
        {"description": 5},
        {"description": {"caption": "a"}},
        {"description": {"caption": "a", "objects": [{"name": "", "mask": []}]}},
        {"coders": 5},
        {"heard": 5},
    ],
)
def test_words_that_make_no_sense_are_a_bad_answer(server: FakeServer, said: Any) -> None:
    server.replies = [linked(), view("done", result=said)]
    with pytest.raises(BadAnswer):
        server.run(encode)


def test_a_job_that_failed_fails_without_further_questions(server: FakeServer) -> None:
    server.replies = [view(), stream(event("1", "failed")), problem(422, "budget-too-small", **LINK)]
    with pytest.raises(errors.BudgetTooSmall):
        server.run(encode)
