# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a job says of its result: all that headers say and the words, for as long as the job is known."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from gateway_apps import CAPTION, PICOGRAM, check_problem, image, make_app, pico, running

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.results import Encoded

STC_FILE = serialise(Picogram(Header(Profile.STC, 4, 2, 1), b"latent", {"caption": b"words"}))
ASYNC = {"prefer": "respond-async"}


@pytest.fixture(params=["memory", "redis"])
def queues(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the queues, which no other test shares."""
    if request.param == "memory":
        return {}
    url = request.getfixturevalue("valkey").url
    return {"redis_url": url, "queue_prefix": f"test-{uuid.uuid4().hex[:8]}"}


async def test_a_file_with_words_is_described_by_its_job(queues: dict[str, Any]) -> None:
    caption = 10_000 * "\N{BEAR FACE}"
    form = {"caption": caption, "profile": "stc", "bytes": "500"}
    async with running(make_app(**queues)) as client:
        response = await client.post("/v1/encode", data=form, files={"image": ("name", image())})
        path = f"/v1/jobs/{response.headers['x-picogram-job']}"
        assert response.headers["link"] == f'<{path}>; rel="describedby"; type="application/json"'
        view = (await client.get(path)).json()
        again = await client.get(f"{path}/result")
    said = view["result"]
    assert (view["status"], said["media_type"], said["profile"]) == ("done", PICOGRAM, "stc")
    assert said["description"] == {"caption": caption, "objects": []}
    encoded = Encoded.of(response.content, said)
    assert encoded.facts() | {"media_type": PICOGRAM, "warnings": [], "timings": said["timings"]} == said
    assert {"queue", "run"} <= said["timings"].keys()
    for name, size in said["sections"].items():
        assert response.headers[f"x-picogram-{name}-bytes"] == str(size)
    assert response.headers["x-picogram-bytes"] == str(said["bytes"]) == str(sum(said["sections"].values()))
    assert (again.content, again.headers["link"]) == (response.content, response.headers["link"])


async def test_a_picture_of_a_file_with_words_is_described_by_its_job(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        response = await client.post("/v1/decode", content=STC_FILE, headers={"content-type": PICOGRAM})
        said = (await client.get(f"/v1/jobs/{response.headers['x-picogram-job']}")).json()["result"]
    timings = said.pop("timings")
    assert said == {
        "media_type": "image/png",
        "width": 4,
        "height": 2,
        "description": {"caption": CAPTION, "objects": []},
        "drawing": {"stages": 0, "steps": 0, "guidance": None, "seed": 0, "model": ""},
        "warnings": ["the objects were left out: \u202eodd"],
    }
    assert {"queue", "run"} <= timings.keys()


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/encode", image()), ("/v1/decode", pico()), ("/v1/inspect", pico())]
)
async def test_without_words_there_is_no_link_and_the_job_is_not_kept(path: str, body: bytes) -> None:
    async with running(make_app()) as client:
        response = await client.post(path, content=body)
        assert "link" not in response.headers
        job = f"/v1/jobs/{response.headers['x-picogram-job']}"
        async with asyncio.timeout(5):
            while (await client.get(job)).status_code != 404:  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/encode?bytes=900", image(), {"profile": "base", "description": None, "heard": None}),
        ("/v1/decode", pico(), {"width": 4, "height": 2, "description": None}),
        ("/v1/inspect", pico(), {"media_type": "application/json"}),
        ("/v1/describe", image(), {"media_type": "application/json"}),
    ],
)
async def test_every_job_that_is_done_says_something_of_its_result(
    queues: dict[str, Any], path: str, body: bytes, told: dict[str, Any]
) -> None:
    async with running(make_app(**queues)) as client:
        job = (await client.post(path, content=body, headers=ASYNC)).json()["id"]
        async with asyncio.timeout(10):
            while (view := (await client.get(f"/v1/jobs/{job}")).json())["status"] != "done":
                assert view["result"] is None
                await asyncio.sleep(0.01)
    assert told.items() <= view["result"].items()


async def test_a_job_that_failed_has_no_result(queues: dict[str, Any]) -> None:
    async with running(make_app(**queues)) as client:
        accepted = await client.post("/v1/encode", content=image(b"budget-too-small"), headers=ASYNC)
        path = accepted.headers["location"]
        async with asyncio.timeout(10):
            while (view := (await client.get(path)).json())["status"] != "failed":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        check_problem(await client.get(f"{path}/result"), 422, "budget-too-small")
    assert view["result"] is None
