# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words over HTTP, with fake handlers: how captions come in and go out, and that their steps hold up nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_apps import (
    CAPTION,
    PICOGRAM,
    Gate,
    async_client,
    check_problem,
    costs,
    image,
    latent,
    make_app,
    result_of,
    running,
    words,
)
from starlette.testclient import TestClient

from picogram.bitstream import Header, Picogram, Profile, parse, serialise

STC_FILE = serialise(Picogram(Header(Profile.STC, 4, 2, 1), b"latent", {"caption": b"words"}))


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(max_body_bytes=1000), raise_server_exceptions=False) as client:
        yield client


def test_words_travel_from_the_language_model_to_the_file_and_its_job(client: TestClient) -> None:
    response = client.post("/v1/encode?profile=stc&bytes=300", content=image())
    said = result_of(client, response)
    assert said["description"] == {"caption": CAPTION, "objects": []}
    assert said["coders"] == {"caption": "utf-8"}
    assert response.headers["x-picogram-caption-bytes"] == str(len(CAPTION.encode()))
    assert response.headers["x-picogram-objects-bytes"] == "0"
    assert costs(response) == len(response.content) == int(response.headers["x-picogram-bytes"])
    assert parse(response.content).optional == {"caption": CAPTION.encode()}


@pytest.mark.parametrize("caption", ["a dog", CAPTION, "", "a+b&c=d %41", 10_000 * "\N{BEAR FACE}"])
def test_a_caption_comes_from_the_query_or_from_a_form(client: TestClient, caption: str) -> None:
    if len(caption) < 1000:
        query = client.post("/v1/encode", params={"profile": "stc", "caption": caption}, content=image())
        assert latent(query)["options"]["caption"] == caption
    with TestClient(make_app()) as roomy:
        form = {"caption": caption, "profile": "stc", "bytes": "500"}
        response = roomy.post("/v1/encode", data=form, files={"image": ("name", image())})
    said = latent(response)
    assert (said["options"]["caption"], said["options"]["bytes"], said["text"]) == (caption, 500, "photo")


def objects(count: int = 1, side: int = 8, **fields: object) -> str:
    return json.dumps([{"name": "dog", "mask": ["#." * (side // 2)] * side, **fields}] * count)


def test_objects_come_from_the_query_or_from_a_form(client: TestClient) -> None:
    sent = [{"name": "dog", "detail": "", "mask": ["#.#.#.#."] * 8}]
    params = {"profile": "misc", "objects": objects()}
    assert latent(client.post("/v1/encode", params=params, content=image()))["options"]["objects"] == sent
    with TestClient(make_app()) as roomy:
        form = {"profile": "sedic", "objects": objects(8, 64, detail="wet " * 249 + "wet")}
        response = roomy.post("/v1/encode", data=form, files={"image": ("name", image())})
    assert [len(each["mask"]) for each in latent(response)["options"]["objects"]] == [64] * 8
    none = client.post("/v1/encode?profile=misc&objects=[]", content=image())
    assert latent(none)["options"]["objects"] == []


@pytest.mark.parametrize(
    ("profile", "sent"),
    [
        ("misc", "[1"),
        ("misc", "{}"),
        ("misc", "[7]"),
        ("misc", "[{}]"),
        ("misc", "[" * 100_000),
        ("misc", "[" + "9" * 10_000 + "]"),
        ("misc", objects(4)),
        ("misc", objects(1, 16)),
        ("sedic", objects(1, 8)),
        ("sedic", objects(9, 16)),
        ("sedic", objects(1, 12)),
        ("misc", objects(mask=["#" * 8] * 7)),
        ("misc", objects(mask=["#" * 8] * 7 + ["#" * 9])),
        ("misc", objects(mask=["########"] * 7 + ["#######x"])),
        ("misc", objects(mask="#" * 64)),
        ("misc", objects(mask=[1] * 8)),
        ("misc", objects(mask=None)),
        ("misc", objects(name="")),
        ("misc", objects(name=None)),
        ("misc", objects(name="dog; cat")),
        ("misc", objects(name="a" * 101)),
        ("misc", objects(name="\x1b[2J")),
        ("misc", objects(name="\ud800")),
        ("misc", objects(detail=["wet"])),
        ("misc", objects(detail="a\nb")),
        ("misc", objects(colour="red")),
        ("stc", objects()),
        ("base", objects()),
        ("taco", objects()),
    ],
)
def test_invalid_objects(profile: str, sent: str) -> None:
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        form = {"profile": profile, "objects": sent}
        response = client.post("/v1/encode", data=form, files={"image": ("name", image())})
    problem = check_problem(response, 422, "usage")
    assert len(problem["detail"]) < 300


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("profile=stc", {"profile": "stc"}),
        ("", {"bytes": "0"}),
        ("", {"size": "1"}),
        ("bytes=9", {"bpp": "1"}),
        ("", {"caption": "a dog"}),
        ("", {"profile": ["stc", "base"]}),
    ],
)
def test_invalid_forms(client: TestClient, query: str, form: dict[str, Any]) -> None:
    response = client.post(f"/v1/encode?{query}", data=form, files={"image": ("name", image())})
    check_problem(response, 422, "usage")


@pytest.mark.parametrize("caption", [" ", "a dog", "two\r\nlines", "\N{BEAR FACE}" * 342, "a" * 10_000])
def test_captions_of_any_length_are_told_whole_and_headers_stay_short(caption: str) -> None:
    with TestClient(make_app()) as client:
        form = {"caption": caption, "profile": "stc", "bytes": "500"}
        response = client.post("/v1/encode", data=form, files={"image": ("name", image())})
        assert result_of(client, response)["description"]["caption"] == caption
    assert sum(len(name) + len(value) for name, value in response.headers.items()) < 2000


def test_decode_delivers_caption_and_warnings(client: TestClient) -> None:
    response = client.post("/v1/decode", content=STC_FILE, headers={"content-type": PICOGRAM})
    assert response.headers["content-type"] == "image/png"
    said = result_of(client, response)
    assert said["description"]["caption"] == CAPTION
    assert (said["media_type"], said["warnings"]) == ("image/png", ["the objects were left out: \u202eodd"])
    assert response.headers.get_list("x-picogram-warning") == ["the objects were left out: \\u202eodd"]
    assert response.json()["facts"]["words_read"]["description"]["caption"] == CAPTION


def test_files_without_words_pass_by_the_language_model(client: TestClient) -> None:
    plain = serialise(Picogram(Header(Profile.BASE, 4, 2, 1), b"latent"))
    response = client.post("/v1/decode", content=plain, headers={"content-type": PICOGRAM})
    assert response.json()["facts"] == {}
    assert "link" not in response.headers


def test_inspect_reads_words(client: TestClient) -> None:
    response = client.post("/v1/inspect", content=STC_FILE, headers={"content-type": PICOGRAM})
    assert response.json()["facts"]["words_read"]["description"]["caption"] == CAPTION


def test_describe(client: TestClient) -> None:
    response = client.post("/v1/describe", content=image(), headers={"content-type": "image/jpeg"})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"caption": CAPTION, "objects": []}
    check_problem(client.post("/v1/describe", content=image(b"model-missing")), 503, "model-missing")
    assert client.post("/v1/describe?mask_side=16", content=image()).status_code == 200
    for side in ("12", "eight", ""):
        response = client.post(f"/v1/describe?mask_side={side}", content=image())
        check_problem(response, 422, "usage")
    check_problem(
        client.post("/v1/describe", content=image(), headers={"content-type": PICOGRAM}),
        415,
        "unsupported-media-type",
    )


async def test_words_keep_nobody_else_waiting_and_share_batches() -> None:
    gate = Gate(words)
    app = make_app(lmm=gate)
    async with running(app) as client:
        wordy = [asyncio.create_task(client.post("/v1/decode", content=STC_FILE))]
        await gate.busy.wait()
        wordy += [asyncio.create_task(client.post("/v1/decode", content=STC_FILE)) for _ in range(20)]
        while await app.state.dispatcher.broker.depth("lmm") < 21:  # noqa: ASYNC110 - a broker tells nobody
            await asyncio.sleep(0.001)
        assert (await client.post("/v1/encode", content=image(b"one"))).status_code == 200
        assert not any(task.done() for task in wordy)
        gate.gone.set()
        assert [response.status_code for response in await asyncio.gather(*wordy)] == [200] * 21
    assert gate.sizes == [1, 16, 4]


async def test_a_shutdown_waits_for_all_steps() -> None:
    gate = Gate(words)
    app = make_app(lmm=gate)
    async with async_client(app) as client:
        async with app.router.lifespan_context(app):
            encoding = asyncio.create_task(client.post("/v1/encode?profile=stc", content=image(b"one")))
            await gate.busy.wait()
            asyncio.get_running_loop().call_later(0.05, gate.gone.set)
        assert (await asyncio.wait_for(encoding, 5)).status_code == 200
