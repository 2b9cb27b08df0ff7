# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What shapes a file and is not in it, over HTTP with fake handlers: captions for the encoder, and what matters most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gateway_apps import CAPTION, check_problem, image, latent, make_app, place_of, result_of
from starlette.testclient import TestClient

from picogram.errors import UsageError
from picogram.pipeline.handovers import WordsToWrite
from picogram.profiles.registry import profile_named
from picogram.request import EncodeOptions

MASK = ["#" * 8] * 3 + ["." * 8] * 5


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("profile", "caption", "focus", "route"),
    [
        ("base", None, None, ("encoder",)),
        ("base", None, "a boat", ("lmm:code", "encoder")),
        ("taco", None, None, ("lmm:code", "encoder")),
        ("taco", "a dog", None, ("lmm:code", "encoder")),
        ("taco", "", None, ("encoder",)),
        ("taco", " \n", None, ("encoder",)),
        ("taco", "", "a boat", ("lmm:code", "encoder")),
        ("stc", "a dog", None, ("lmm:code", "encoder")),
        ("stc", "", "a boat", ("lmm:code", "encoder")),
        ("misc", None, None, ("lmm:code", "encoder")),
        ("sedic", None, "a boat", ("lmm:code", "encoder")),
    ],
)
def test_only_words_go_to_the_language_model(
    profile: str, caption: str | None, focus: str | None, route: tuple[str, ...]
) -> None:
    assert profile_named(profile).encode_route(caption, focus) == route


@pytest.mark.parametrize(("query", "heard"), [("&caption=a+dog", "a dog"), ("", CAPTION)])
def test_a_caption_that_shaped_the_file_is_said_to_be_heard_and_not_in_it(
    client: TestClient, query: str, heard: str
) -> None:
    response = client.post(f"/v1/encode?profile=taco{query}", content=image())
    assert latent(response)["facts"]["words_to_write"]["hints"]["heard"] == heard
    said = result_of(client, response)
    assert (said["heard"], said["description"]) == (heard, None)
    assert response.headers["x-picogram-caption-bytes"] == "0"


def test_without_a_caption_nothing_is_heard(client: TestClient) -> None:
    for query in ("profile=taco&caption=", "profile=base", "profile=stc&caption=a+dog"):
        response = client.post(f"/v1/encode?{query}", content=image())
        assert response.status_code == 200
        said = result_of(client, response) if "profile=stc" in query else {"heard": None}
        assert said["heard"] is None
        assert ("link" in response.headers) == ("profile=stc" in query)


def test_a_long_caption_that_was_heard_is_told_whole(client: TestClient) -> None:
    form = {"profile": "taco", "caption": 10_000 * "\N{BEAR FACE}"}
    response = client.post("/v1/encode", data=form, files={"image": ("name", image())})
    assert result_of(client, response)["heard"] == form["caption"]


@pytest.mark.parametrize("profile", ["base", "stc", "misc", "taco", "sedic"])
def test_a_focus_comes_from_the_query_or_from_a_form(client: TestClient, profile: str) -> None:
    for given, plain in (("the red boat", "the red boat"), (json.dumps(MASK), MASK)):
        name = "focus_mask" if plain is MASK else "focus"
        query = client.post("/v1/encode", params={"profile": profile, name: given}, content=image())
        form = {"profile": profile, name: given, "bytes": "300"}
        filled = client.post("/v1/encode", data=form, files={"image": ("name", image())})
        for response in (query, filled):
            assert response.status_code == 200, response.text
            options = latent(response)["options"]
            assert options[name] == plain
            assert options["focus" if plain is MASK else "focus_mask"] is None


def test_a_mask_needs_no_language_model(client: TestClient) -> None:
    response = client.post("/v1/encode", params={"focus_mask": json.dumps(MASK)}, content=image())
    assert latent(response)["facts"] == {}
    named = client.post("/v1/encode?focus=the+red+boat", content=image())
    left = WordsToWrite.of(latent(named)["facts"])
    assert left is not None
    assert left.prepared.hints.states is None
    focus = left.prepared.hints.focus
    assert focus is not None
    assert np.array_equal(focus.weights, place_of("the red boat").weights)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"focus": "a boat", "focus_mask": json.dumps(MASK)}, "give at most one of focus and focus_mask"),
        ({"focus": ""}, "no words"),
        ({"focus": " \n"}, "no words"),
        ({"focus": "a" * 201}, "200"),
        ({"focus_mask": ""}, "not JSON"),
        ({"focus_mask": "[" * 100_000}, "nested too deeply"),
        ({"focus_mask": "{}"}, "list of rows"),
        ({"focus_mask": "[1]"}, "list of rows"),
        ({"focus_mask": json.dumps(["#." * 6] * 12)}, "8, 16, 32 or 64"),
        ({"focus_mask": json.dumps(MASK[1:])}, "8, 16, 32 or 64"),
        ({"focus_mask": json.dumps(["x" * 8] * 8)}, "list of rows"),
        ({"focus_mask": json.dumps(["." * 8] * 8)}, "tells nothing"),
        ({"focus_mask": json.dumps(["#" * 64] * 64)}, "tells nothing"),
    ],
)
def test_a_focus_that_tells_nothing_is_refused(client: TestClient, fields: dict[str, str], told: str) -> None:
    response = client.post("/v1/encode", data=fields, files={"image": ("name", image())})
    problem = check_problem(response, 422, "usage")
    assert told in problem["detail"]
    assert len(problem["detail"]) < 300


def test_the_interface_is_described(client: TestClient) -> None:
    described: dict[str, Any] = client.get("/openapi.json").json()["paths"]["/v1/encode"]["post"]
    parameters = {each["name"]: each for each in described["parameters"]}
    for name in ("focus", "focus_mask"):
        assert parameters[name]["description"]
        assert parameters[name]["schema"]["examples"]
    form = described["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"focus", "focus_mask"} <= form.keys()
    example = parameters["focus_mask"]["schema"]["examples"][0]
    assert client.post("/v1/encode", params={"focus_mask": example}, content=image()).status_code == 200
    assert "Link" in described["responses"]["200"]["headers"]


@pytest.mark.parametrize("query", ["bytes=300&bytes=100", "effort=1&bytes=300&effort=1"])
def test_an_argument_that_comes_twice_is_refused(client: TestClient, query: str) -> None:
    problem = check_problem(client.post(f"/v1/encode?{query}", content=image()), 422, "usage")
    assert "more than once" in problem["detail"]


@pytest.mark.parametrize(
    ("name", "value"), [("bpp", "1e9"), ("bytes", "0"), ("quality", "101"), ("effort", "3")]
)
def test_a_value_is_refused_with_the_words_of_the_library(client: TestClient, name: str, value: str) -> None:
    given: dict[str, Any] = {name: float(value) if name in ("bpp", "quality") else int(value)}
    with pytest.raises(UsageError) as refused:
        EncodeOptions(**given)
    problem = check_problem(client.post(f"/v1/encode?{name}={value}", content=image()), 422, "usage")
    assert str(refused.value) in problem["detail"]
