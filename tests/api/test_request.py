# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Requests: what is offered is the same everywhere, and what cannot be is refused in the same words."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from fake_server import FakeServer, server
from gateway_apps import check_problem, image, make_app, pico
from PIL import Image
from starlette.testclient import TestClient

import picogram
from picogram.cli.main import app, main
from picogram.errors import UnsupportedProfile, UsageError
from picogram.profiles.registry import PROFILES
from picogram.request import (
    MAX_EFFORT,
    MAX_STEPS,
    DecodeArguments,
    DecodeOptions,
    EncodeArguments,
    EncodeOptions,
    arguments_of,
)
from picogram.semantics.description import Region
from picogram_gateway.requests import Arguments, DecodeQuery, EncodeQuery

__all__ = ["server"]  # a fixture

Options = type[EncodeOptions] | type[DecodeOptions]
BOTH: list[tuple[str, Options]] = [("encode", EncodeOptions), ("decode", DecodeOptions)]
OF_FILES = {"objects", "focus_mask"}
"""Lists: a command line reads them from files."""
WHOLE_COMMANDS = {
    "encode": {"inputs", "out", "caption_file", "objects_file", "focus_mask", "overwrite", "server"},
    "decode": {"inputs", "out", "format", "overwrite", "server"},
}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("encode", {"bytes": 0}, "bytes must be a whole number from 1 to 1099511627776"),
    ("encode", {"bytes": 2**41}, "bytes must be a whole number from 1 to 1099511627776"),
    ("encode", {"bpp": 1e9}, "bpp must be a number from 1e-06 to 1e+06"),
    ("encode", {"bpp": -1.0}, "bpp must be a number from 1e-06 to 1e+06"),
    ("encode", {"bpp": float("nan")}, "bpp must be a number from 1e-06 to 1e+06"),
    ("encode", {"quality": 101}, "quality must be a number from 0 to 100"),
    ("encode", {"quality": float("inf")}, "quality must be a number from 0 to 100"),
    ("encode", {"effort": 3}, "effort must be a whole number from 0 to 2"),
    ("encode", {"bytes": 9, "bpp": 1.0}, "give at most one of bytes, bpp and quality"),
    ("decode", {"steps": 99}, "steps must be a whole number from 0 to 50"),
    ("decode", {"steps": -1}, "steps must be a whole number from 0 to 50"),
    ("decode", {"guidance": 20.5}, "guidance must be a number from 0 to 20"),
    ("decode", {"seed": -1}, "seed must be a whole number from 0 to 4294967295"),
    ("decode", {"seed": 2**32}, "seed must be a whole number from 0 to 4294967295"),
    ("encode", {"caption": "a"}, "profile base carries no caption: use profile stc (--profile stc)"),
    ("encode", {"focus": " \n"}, "the focus has no words"),
    ("encode", {"bytes": 100.5}, "bytes must be a whole number from 1 to 1099511627776"),
    ("encode", {"bytes": "many"}, "bytes must be a whole number from 1 to 1099511627776"),
    ("encode", {"bpp": "low"}, "bpp must be a number from 1e-06 to 1e+06"),
    ("encode", {"quality": ""}, "quality must be a number from 0 to 100"),
    ("encode", {"effort": 1.5}, "effort must be a whole number from 0 to 2"),
    ("decode", {"steps": 1.5}, "steps must be a whole number from 0 to 50"),
    ("decode", {"guidance": "much"}, "guidance must be a number from 0 to 20"),
    ("decode", {"seed": "any"}, "seed must be a whole number from 0 to 4294967295"),
    ("encode", {"focus": "x" * 201}, "the focus has 201 characters; it may have 200"),
    (
        "encode",
        {"profile": "stc", "caption": "x" * 10_001},
        "the caption has 10,001 characters, more than the limit of 10,000",
    ),
]


# --- what is offered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "options"), BOTH)
def test_calls_take_the_fields_of_the_options(verb: str, options: Options) -> None:
    fields = [field.name for field in dataclasses.fields(options)]
    taken = {"encode": EncodeArguments, "decode": DecodeArguments}[verb].__annotations__
    assert list(taken) == fields
    assert [a.name for a in arguments_of(options) if a.name != "focus_mask"] == fields
    assert all(argument.help == " ".join(argument.help.split()) for argument in arguments_of(options))


@pytest.mark.parametrize(("verb", "options"), BOTH)
def test_the_command_line_offers_what_the_options_are(verb: str, options: Options) -> None:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    offered = {parameter.name: parameter for parameter in command.params}
    arguments = {argument.name: argument for argument in arguments_of(options)}
    assert {flag for each in offered.values() for flag in each.opts} >= {f"--{n}" for n in arguments} - {
        f"--{name}" for name in OF_FILES
    }
    assert {"--objects", "--focus-mask"} <= {f for each in offered.values() for f in each.opts} or (
        verb == "decode"
    )
    derived = arguments.keys() - OF_FILES
    assert set(offered) == derived | WHOLE_COMMANDS[verb] | {"api_key_env"}
    for name in derived:
        assert offered[name].default == arguments[name].default
        assert arguments[name].help.replace("`", "")[1:] in offered[name].help
        assert (f"-{arguments[name].short}" in offered[name].opts) == (arguments[name].short is not None)


@pytest.mark.parametrize(("verb", "options"), BOTH)
def test_a_server_offers_what_the_options_are(verb: str, options: Options) -> None:
    queries: dict[str, type[Arguments]] = {"encode": EncodeQuery, "decode": DecodeQuery}
    query = queries[verb]
    assert list(query.model_fields) == [argument.name for argument in arguments_of(options)]
    described = make_app().openapi()["paths"][f"/v1/{verb}"]["post"]["parameters"]
    offered = {each["name"]: each for each in described if each["in"] == "query"}
    assert offered.keys() == query.model_fields.keys()
    for argument in arguments_of(options):
        schema = offered[argument.name]["schema"]
        assert offered[argument.name]["description"] == argument.help
        assert schema.get("default") == argument.default
        assert (schema.get("minimum"), schema.get("maximum")) == (argument.low, argument.high)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.fixture
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6), "blue").save("a.png")
    Path("a.pico").write_bytes(pico())


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(make_app()) as client:
        yield client


@pytest.mark.parametrize(("verb", "wrong", "told"), REFUSED)
def test_options_and_the_library_refuse(verb: str, wrong: dict[str, Any], told: str) -> None:
    options = dict(BOTH)[verb]
    source: Any = Image.new("RGB", (8, 6)) if verb == "encode" else pico()
    for make in (
        lambda: options(**wrong),
        lambda: options.of(json.loads(json.dumps(wrong))),
        lambda: getattr(picogram, verb)(source, **wrong),
        lambda: getattr(picogram, f"{verb}_detailed")(source, **wrong),
    ):
        with pytest.raises(UsageError) as caught:
            make()
        assert str(caught.value) == told


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("elsewhere", [[], ["--server", "http://127.0.0.1:9"]])
@pytest.mark.parametrize(("verb", "wrong", "told"), REFUSED)
def test_the_command_line_refuses_in_the_same_words(
    verb: str, wrong: dict[str, Any], told: str, elsewhere: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"encode": "a.png", "decode": "a.pico"}[verb]
    given = [each for name, value in wrong.items() for each in (f"--{name}", str(value))]
    assert main([verb, source, "-o", "made", *given, *elsewhere]) == 2
    assert capsys.readouterr() == ("", f"error: {told} [usage]\n")
    assert not Path("made").exists()


@pytest.mark.parametrize(("verb", "wrong", "told"), REFUSED)
def test_a_client_refuses_in_the_same_words_and_asks_nobody(
    server: FakeServer, verb: str, wrong: dict[str, Any], told: str
) -> None:
    source = image() if verb == "encode" else pico()
    with pytest.raises(UsageError) as caught:
        server.run(lambda client: getattr(client, verb)(source, **wrong))
    assert str(caught.value) == told
    assert server.requests == []


@pytest.mark.parametrize(("verb", "wrong", "told"), REFUSED)
def test_a_server_refuses_in_the_same_words(
    http: TestClient, verb: str, wrong: dict[str, Any], told: str
) -> None:
    source = image() if verb == "encode" else pico()
    params = {name: str(value) for name, value in wrong.items()}
    answer = http.post(f"/v1/{verb}", params=params, content=source)
    check_problem(answer, 422, "usage")
    assert answer.json()["detail"] == told


def test_bounds_are_those_that_help_and_errors_name() -> None:
    for steps in (0, MAX_STEPS):
        assert DecodeOptions(steps=steps).steps == steps
    for effort in range(MAX_EFFORT + 1):
        assert EncodeOptions(effort=effort).effort == effort
    with pytest.raises(UnsupportedProfile, match="'none' is not known"):
        EncodeOptions(profile="none")


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_options_come_whole_or_field_by_field(photo: Image.Image, verb: str) -> None:
    source: Any = photo if verb == "encode" else pico()
    options: Any = EncodeOptions(quality=3) if verb == "encode" else DecodeOptions(steps=0)
    act = getattr(picogram, verb)
    with pytest.raises(UsageError, match="within the options"):
        act(source, options, **({"bytes": 90} if verb == "encode" else {"seed": 3}))
    with pytest.raises(TypeError, match=f"{verb} has no argument 'sted'"):
        act(source, sted=1)
    if verb == "encode":
        assert act(source, options) == act(source, quality=3)


# --- how they travel -------------------------------------------------------------------------------------


def region(side: int) -> Region:
    return Region("dog", "wet", np.eye(side, dtype=np.bool_))


@pytest.mark.parametrize(
    "options",
    [
        EncodeOptions(),
        EncodeOptions(bytes=900, effort=2),
        EncodeOptions(bpp=0.04, profile="stc", caption="Ein Bär."),
        EncodeOptions(quality=0.0, profile="misc", caption="", objects=[]),
        EncodeOptions(profile="sedic", objects=[region(16), region(64)], focus="the red boat"),
        EncodeOptions(focus=np.eye(8, dtype=np.bool_)),
        DecodeOptions(),
        DecodeOptions(steps=0, guidance=0.5, seed=2**32 - 1),
    ],
)
def test_options_travel_as_json(options: EncodeOptions | DecodeOptions) -> None:
    plain = json.loads(json.dumps(options.plain()))
    back = type(options).of(plain)
    assert back.plain() == options.plain()
    for field in dataclasses.fields(options):
        before, after = getattr(options, field.name), getattr(back, field.name)
        if field.name == "objects" and before is not None:
            before = tuple(before)
        if isinstance(before, np.ndarray):
            assert np.array_equal(before, after)
        else:
            assert before == after


def test_a_map_of_weights_does_not_travel() -> None:
    with pytest.raises(UsageError, match="zeros and ones"):
        EncodeOptions(focus=np.linspace(0, 1, 64).reshape(8, 8)).plain()
    with pytest.raises(UsageError, match="8, 16, 32 or 64"):
        EncodeOptions(focus=np.eye(9, dtype=np.bool_)).plain()
    mask = ["#" * 8] * 4 + ["." * 8] * 4
    with pytest.raises(UsageError, match="at most one of focus and focus_mask"):
        EncodeOptions.of({"focus": "the boat", "focus_mask": mask})


# --- a profile of one's own ------------------------------------------------------------------------------

REGISTERED = """
import importlib, io, json
from contextlib import redirect_stdout
from dataclasses import replace

import picogram.request
from picogram.profiles import base, registry

code = type("Code", (int,), {"name": "HAIKU"})(7)
registry.PROFILES["haiku"] = replace(base.PROFILE, code=code, label="Haiku", explanation="seventeen syllables")
importlib.reload(picogram.request)  # which derives what is offered, once

from picogram.cli.main import main
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend, shipped_catalogue

with redirect_stdout(io.StringIO()) as help:
    assert main(["encode", "--help"]) == 0
paths = create_app(GatewaySettings(), embedded_backend()).openapi()["paths"]
print(json.dumps({
    "help": " ".join(help.getvalue().replace("\\u2502", " ").split()),
    "parameters": paths["/v1/encode"]["post"]["parameters"],
    "models": shipped_catalogue(),
}))
"""


def test_a_profile_that_is_registered_is_offered_everywhere() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", REGISTERED], capture_output=True, text=True, env=environment, check=True
    )
    said = json.loads(done.stdout)
    assert "haiku: seventeen syllables" in said["help"]
    (profile,) = (each for each in said["parameters"] if each["name"] == "profile")
    assert profile["schema"]["enum"] == [*PROFILES, "haiku"]
    assert "haiku: seventeen syllables" in profile["description"]
    assert said["models"]["profiles"] == [*PROFILES, "haiku"]
    last = said["models"]["profile_details"][-1]
    assert (last["name"], last["label"], last["default"]) == ("haiku", "Haiku", False)
