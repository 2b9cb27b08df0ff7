# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Options are said once: command line, gateway and page offer what the library takes, and refuse with its words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from gateway_apps import check_problem, image, make_app, pico
from PIL import Image
from starlette.testclient import TestClient

from picogram.cli.main import app as commands
from picogram.cli.main import main
from picogram.client import Client
from picogram.errors import PicogramError
from picogram.profiles.registry import DEFAULT_PROFILE, PROFILES
from picogram.request import Argument, DecodeOptions, EncodeOptions, arguments_of
from picogram_gateway.workers import shipped_catalogue

OFFERED = [("encode", EncodeOptions), ("decode", DecodeOptions)]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        yield client


# --- what is offered --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "options"), OFFERED)
def test_the_gateway_offers_what_the_options_take(client: TestClient, verb: str, options: type) -> None:
    described = client.get("/openapi.json").json()["paths"][f"/v1/{verb}"]["post"]
    query = {each["name"]: each for each in described["parameters"] if each["in"] == "query"}
    form = described["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    offered = arguments_of(options)
    assert list(query) == [argument.name for argument in offered]
    assert form.keys() - {"image", "file"} == query.keys()
    for argument in offered:
        assert query[argument.name]["description"] == argument.help
        assert not query[argument.name]["required"]
        check_schema(query[argument.name]["schema"], argument)


def check_schema(schema: dict[str, Any], argument: Argument) -> None:
    told = schema.get("minimum"), schema.get("maximum"), schema.get("maxLength")
    assert told == (argument.low, argument.high, argument.longest)
    assert schema.get("default") == argument.default
    kinds = [each.get("type") for each in schema.get("anyOf", [schema])]
    kind = {int: "integer", float: "number", str: "string"}[argument.kind]
    assert kinds == ([kind] if argument.default is not None else [kind, "null"])
    assert tuple(schema.get("enum", ())) == argument.choices
    assert argument.example is None or schema["examples"] == [argument.example]


@pytest.mark.parametrize(("verb", "options"), OFFERED)
def test_the_command_line_offers_what_the_options_take(verb: str, options: type) -> None:
    command = typer.main.get_command(commands).commands[verb]  # type: ignore[attr-defined]
    offered = {flag: each for each in command.params for flag in each.opts}
    for argument in arguments_of(options):
        option = offered[f"--{argument.name.replace('_', '-')}"]
        if argument.json:  # lists come from files
            continue
        assert (option.default, option.metavar) == (argument.default, f"<{argument.kind.__name__}>")
        assert argument.help.replace("`", "")[1:] in option.help
        assert argument.short is None or f"-{argument.short}" in option.opts


def test_models_say_what_profiles_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    monkeypatch.setattr(app.state, "backend", type(app.state.backend)({}, catalogue=shipped_catalogue))
    with TestClient(app) as client:
        said = client.get("/v1/models").json()
    details = {each["name"]: each for each in said["profile_details"]}
    assert list(details) == said["profiles"] == list(PROFILES)
    for name, spec in PROFILES.items():
        assert details[name] == {
            "name": name,
            "label": spec.label,
            "explanation": spec.explanation,
            "sections": list(spec.sections),
            "max_objects": spec.max_objects,
            "guided": spec.guided,
            "default": name == DEFAULT_PROFILE,
        }


REGISTERED = """
import importlib.util, json, sys, types

# Options list the profiles when they are made, so a new one has to be there before them.
package = types.ModuleType("picogram")
package.__path__ = importlib.util.find_spec("picogram").submodule_search_locations
sys.modules["picogram"] = package
from picogram.profiles import registry, taco

class Sketch(type(taco.PROFILE)):
    name = property(lambda self: "sketch")

plain = taco.PROFILE
registry.PROFILES["sketch"] = Sketch(plain.code, "A sketch", "lines only", plain.plans, guided=True)
del sys.modules["picogram"]

import typer
from gateway_apps import image, make_app
from starlette.testclient import TestClient
from picogram.cli.main import app
from picogram.request import EncodeOptions
from picogram_gateway.workers import shipped_catalogue

(option,) = [o for o in typer.main.get_command(app).commands["encode"].params if o.name == "profile"]
with TestClient(make_app()) as client:
    query = client.get("/openapi.json").json()["paths"]["/v1/encode"]["post"]["parameters"]
    answer = client.post("/v1/encode?profile=sketch&bytes=0", content=image()).json()["detail"]
(schema,) = [each["schema"] for each in query if each["name"] == "profile"]
models = shipped_catalogue()
print(json.dumps([option.help, schema["enum"], answer, models["profiles"], models["profile_details"][-1]]))
"""


def test_a_profile_that_is_registered_is_offered_everywhere() -> None:
    path = str(Path(__file__).parents[1] / "support")
    code = f"import sys; sys.path.append({path!r})\n{REGISTERED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    help, choices, answer, names, details = json.loads(done.stdout.splitlines()[-1])
    assert "sketch: lines only" in help
    assert choices == names == [*PROFILES, "sketch"]
    assert answer.startswith("bytes must be")
    assert (details["name"], details["label"], details["guided"]) == ("sketch", "A sketch", True)


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("encode", {"bpp": 1e9}),
        ("encode", {"bpp": float("nan")}),
        ("encode", {"bpp": -1}),
        ("encode", {"bpp": "much"}),
        ("encode", {"bytes": 0}),
        ("encode", {"bytes": 100.5}),
        ("encode", {"bytes": "1e3"}),
        ("encode", {"bytes": "many"}),
        ("encode", {"quality": 101}),
        ("encode", {"quality": float("inf")}),
        ("encode", {"effort": 3}),
        ("encode", {"effort": 1.5}),
        ("encode", {"bytes": 100, "bpp": 1}),
        ("encode", {"profile": "none"}),
        ("encode", {"caption": "a dog"}),
        ("encode", {"profile": "stc", "caption": 10_001 * "a"}),
        ("encode", {"focus": " "}),
        ("encode", {"focus": 201 * "a"}),
        ("decode", {"steps": 99}),
        ("decode", {"steps": -1}),
        ("decode", {"steps": 1.5}),
        ("decode", {"steps": "two"}),
        ("decode", {"guidance": 20.5}),
        ("decode", {"guidance": "strong"}),
        ("decode", {"seed": 2**32}),
        ("decode", {"seed": 0.5}),
    ],
)
def test_what_cannot_be_is_refused_with_the_same_words(
    client: TestClient,
    verb: str,
    given: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(PicogramError) as refused:
        dict(OFFERED)[verb](**given)
    words = str(refused.value)

    payload, field = (image(), "image") if verb == "encode" else (pico(), "file")
    texts = {name: str(value) for name, value in given.items()}
    query = client.post(f"/v1/{verb}", params=texts, content=payload)
    form = client.post(f"/v1/{verb}", data=texts, files={field: ("name", payload)})
    for response in (query, form):
        problem = check_problem(response, 422, "usage")
        assert (problem["detail"], problem["errors"][0]["message"]) == (words, words)

    with Client("http://127.0.0.1:9", retries=0) as remote, pytest.raises(type(refused.value)) as told:
        getattr(remote, verb)(payload, **given)
    assert str(told.value) == words

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6)).save("a.png")
    Path("a.pico").write_bytes(pico())
    source = "a.png" if verb == "encode" else "a.pico"
    options = [f"--{name}={text}" for name, text in texts.items()]
    assert main([verb, source, "-o", "out.png", *options]) == refused.value.exit_code
    assert capsys.readouterr().err == f"error: {words} [{refused.value.slug}]\n"
