# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing over HTTP: arguments and their ranges with fake handlers; previews, progress and cancellation with a real file.

The diffusion model is a tiny one with random weights.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx2
import pytest
from gateway_apps import PICOGRAM, check_problem, make_app, pico, running
from PIL import Image
from starlette.testclient import TestClient
from tiny_denoiser import TinyDenoiser

import picogram
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.pipeline.handovers import JobReport
from picogram.results import Decoded, Drawing
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend

FILE = {"content-type": PICOGRAM}
ASYNC = FILE | {"prefer": "respond-async"}


def saying(jobs: list[Job]) -> list[Outcome]:
    """Answers with the options, as a decoder that took two steps."""
    drawn = Decoded(Image.new("RGB", (4, 2)), drawing=Drawing(1, 2, 1.5, 9, "pencil"))
    facts = JobReport(drawn.facts()).facts()
    return [Result(json.dumps(dict(job.options)).encode(), "image/png", facts) for job in jobs]


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (None, None, 0)),
        ({"steps": "0"}, (0, None, 0)),
        ({"steps": "50", "guidance": "20", "seed": "4294967295"}, (50, 20.0, 2**32 - 1)),
        ({"guidance": "1.5", "seed": "7"}, (None, 1.5, 7)),
    ],
)
def test_arguments_come_from_the_query_or_from_a_form(given: dict[str, str], expected: Any) -> None:
    with TestClient(make_app(saying)) as client:
        query = client.post("/v1/decode", params=given, content=pico(), headers=FILE)
        form = client.post("/v1/decode", data=given, files={"file": ("name", pico())})
    for response in (query, form):
        said = response.json()
        assert (said["steps"], said["guidance"], said["seed"]) == expected
        assert said["media_type"] == "image/png"
        names = ("stages", "steps", "guidance", "seed", "model")
        told = [response.headers[f"x-picogram-{name}"] for name in names]
        assert told == ["1", "2", "1.5", "9", "pencil"]


@pytest.mark.parametrize(
    "argument",
    [
        "steps=-1",
        "steps=51",
        "steps=1.5",
        "steps=many",
        "steps=",
        "guidance=-0.1",
        "guidance=20.1",
        "guidance=nan",
        "guidance=inf",
        "seed=-1",
        "seed=4294967296",
        "seed=x",
        "start=0.5",
    ],
)
def test_arguments_out_of_range_are_problems(argument: str) -> None:
    with TestClient(make_app(saying)) as client:
        response = client.post(f"/v1/decode?{argument}", content=pico(), headers=FILE)
        check_problem(response, 422, "usage")
        name, _, value = argument.partition("=")
        form = client.post("/v1/decode", data={name: value}, files={"file": ("name", pico())})
        check_problem(form, 422, "usage")


def test_no_argument_comes_twice() -> None:
    with TestClient(make_app(saying)) as client:
        response = client.post("/v1/decode?steps=1", data={"steps": "1"}, files={"file": ("name", pico())})
        assert "in the query and in the form" in check_problem(response, 422, "usage")["detail"]


def test_an_idempotency_key_is_for_one_way_to_draw() -> None:
    with TestClient(make_app(saying)) as client:
        headers = FILE | {"idempotency-key": "one"}
        first = client.post("/v1/decode?seed=1", content=pico(), headers=headers)
        again = client.post("/v1/decode?seed=1", content=pico(), headers=headers)
        assert first.headers["x-picogram-job"] == again.headers["x-picogram-job"]
        other = client.post("/v1/decode?seed=2", content=pico(), headers=headers)
        check_problem(other, 422, "idempotency-conflict")


def test_the_interface_tells_the_ranges() -> None:
    with TestClient(make_app()) as client:
        decode = client.get("/openapi.json").json()["paths"]["/v1/decode"]["post"]
    ranges = {each["name"]: each["schema"] for each in decode["parameters"] if each["in"] == "query"}
    assert set(ranges) == {"steps", "guidance", "seed"}
    assert (ranges["seed"]["minimum"], ranges["seed"]["maximum"]) == (0, 2**32 - 1)
    assert (ranges["steps"]["minimum"], ranges["steps"]["maximum"]) == (0, 50)
    form = decode["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"file", "steps", "guidance", "seed"}
    told = {f"X-Picogram-{name}" for name in ("Stages", "Steps", "Guidance", "Seed", "Model")}
    assert told | {"Link"} <= set(decode["responses"]["200"]["headers"])


# --- with a real file -----------------------------------------------------------------------------------------------


@pytest.fixture
def denoiser(monkeypatch: pytest.MonkeyPatch) -> TinyDenoiser:
    """What the embedded decoder imagines with."""
    tiny = TinyDenoiser()
    monkeypatch.setattr("picogram.diffusion.embedded.load_denoiser", lambda: tiny)
    return tiny


@pytest.fixture(scope="module")
def file(photos: list[Image.Image]) -> bytes:
    return picogram.encode(photos[2], bytes=250)


async def story(client: httpx2.AsyncClient, job: str) -> list[tuple[str, Any]]:
    """(event, data) of a job, to its end."""
    text = (await client.get(f"/v1/jobs/{job}/events")).text
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [(each["event"], json.loads(each["data"])) for each in fields]


async def test_the_base_picture_and_progress_come_before_the_end(denoiser: TinyDenoiser, file: bytes) -> None:
    async with asyncio.timeout(60), running(create_app(GatewaySettings(), embedded_backend())) as client:
        accepted = await client.post("/v1/decode?steps=4&seed=3", content=file, headers=ASYNC)
        job = accepted.json()["id"]
        told = await story(client, job)
        result = await client.get(f"/v1/jobs/{job}/result")
        plain = await client.post("/v1/decode?steps=0", content=file, headers=FILE)
    assert [name for name, _ in told] == ["queued", "running", "preview", *["progress"] * 4, "done"]
    assert [data["fraction"] for name, data in told if name == "progress"] == [0.25, 0.5, 0.75, 1.0]
    preview = told[2][1]
    assert (preview["media_type"], preview["step"]) == ("image/webp", "decoder")
    assert read_image(base64.b64decode(preview["data"])).size == (300, 200)
    assert (result.headers["x-picogram-steps"], result.headers["x-picogram-seed"]) == ("4", "3")
    assert plain.headers["x-picogram-steps"] == "0"
    assert read_image(plain.content).tobytes() == picogram.decode(file, steps=0).tobytes()
    assert read_image(result.content).tobytes() != read_image(plain.content).tobytes()


async def test_giving_a_job_up_ends_it_between_two_steps(denoiser: TinyDenoiser, file: bytes) -> None:
    denoiser.pause = 0.1
    async with asyncio.timeout(60), running(create_app(GatewaySettings(), embedded_backend())) as client:
        accepted = await client.post("/v1/decode?steps=50", content=file, headers=ASYNC)
        path = f"/v1/jobs/{accepted.json()['id']}"
        while (await client.get(path)).json()["progress"] == 0:  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.02)
        assert (await client.delete(path)).json()["status"] == "canceled"
        check_problem(await client.get(f"{path}/result"), 410, "job-canceled")
        after = await client.post(
            "/v1/decode?steps=1", content=file, headers=FILE
        )  # waits until the decoder is free
        assert after.status_code == 200
    assert denoiser.steps < 25
