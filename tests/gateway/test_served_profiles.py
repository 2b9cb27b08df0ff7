# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Every profile through the embedded server: encode, inspect and decode of a small photograph, each byte accounted for.

The shipped models draw; a captioner that tests bring sees, and texts are coded without the language model. The last test
takes the real captioner and language model and runs only where they have been pulled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from gateway_apps import check_problem, costs, result_of, until_ready
from hearing_words import HearingWords
from live_gateway import listening
from PIL import Image
from starlette.testclient import TestClient

import picogram
from picogram.bitstream import parse
from picogram.cli.main import main
from picogram.errors import UsageError
from picogram.models import store
from picogram.semantics.description import Description, Region
from picogram.semantics.plain import description_of, plain_objects
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend
from picogram_lmm import lmm_handler as lmm

PICOGRAM = {"content-type": "application/vnd.picogram"}
PROFILES = ("base", "stc", "misc", "taco", "sedic")
SEEN = "An astronaut in orange."


def region(name: str, side: int, detail: str = "") -> Region:
    return Region(name, detail, np.tri(side, dtype=np.bool_))


class Captioner:
    """Sees the same suit in every picture."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [Description(SEEN, (region("suit", side, "orange"),) if objects else ())] * len(pictures)


@pytest.fixture(scope="module")
def server() -> Iterator[TestClient]:
    with TestClient(
        create_app(GatewaySettings(), embedded_backend()), raise_server_exceptions=False
    ) as client:
        yield until_ready(client)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Words:
    """Words without a language model."""
    words = HearingWords(Captioner())
    monkeypatch.setattr(lmm, "default_words", lambda: words)
    return words


@pytest.fixture(scope="module")
def photo(photos: list[Image.Image]) -> Image.Image:
    return photos[0].resize((96, 64))


def encode(server: TestClient, photo: Image.Image, **fields: str) -> httpx2.Response:
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return server.post("/v1/encode", data=fields, files={"image": ("photo.png", buffer.getvalue())})


def there_and_back(
    server: TestClient, photo: Image.Image, steps: str = "?steps=1", **fields: str
) -> tuple[bytes, dict[str, Any]]:
    """A file and what inspection says of it, after checking what the server says of it altogether."""
    encoded = encode(server, photo, **fields)
    assert encoded.status_code == 200, encoded.text
    data = encoded.content
    assert costs(encoded) == len(data) == int(encoded.headers["x-picogram-bytes"])
    facts: dict[str, Any] = server.post("/v1/inspect", content=data, headers=PICOGRAM).json()
    assert facts["header_bytes"] + sum(facts["sections"].values()) == len(data) == facts["file_bytes"]
    for name, size in facts["sections"].items():
        assert int(encoded.headers[f"x-picogram-{name}-bytes"]) == size == facts["details"][name]["bytes"]
    decoded = server.post(f"/v1/decode{steps}", content=data, headers=PICOGRAM)
    assert decoded.status_code == 200, decoded.text
    assert Image.open(io.BytesIO(decoded.content)).size == photo.size
    for response in (encoded, decoded):
        said = result_of(server, response) if "link" in response.headers else {"description": None}
        assert said["description"] == facts["description"]
        assert said.get("sections", encoded_sections(facts)) == encoded_sections(facts)
    return data, facts


def encoded_sections(facts: dict[str, Any]) -> dict[str, int]:
    """Bytes by section as inspection has them, with the header."""
    return {"header": facts["header_bytes"], **facts["sections"]}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("options", [{"bytes": "2500"}, {"bpp": "4.5"}, {"quality": "20"}])
def test_every_profile_goes_there_and_back(
    server: TestClient, photo: Image.Image, words: Words, profile: str, options: dict[str, str]
) -> None:
    steps = "" if "bytes" in options else "?steps=1"  # as the profile has it, or quickly
    data, facts = there_and_back(server, photo, steps, profile=profile, **options)
    assert facts["profile"] == profile
    expected = {
        "base": None,
        "stc": Description(SEEN),
        "misc": Description(SEEN, (region("suit", 8, "orange"),)),
        "taco": None,
        "sedic": Description(SEEN, (region("suit", 16, "orange"),)),
    }[profile]
    assert (description_of(facts["description"]) if facts["description"] else None) == expected
    number = {name: float(value) if name != "bytes" else int(value) for name, value in options.items()}
    assert data == picogram.encode(photo, profile=profile, words=words, **number)  # type: ignore[arg-type]


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(
    ("profile", "objects"),
    [
        ("misc", (region("dog", 8, "wet"), region("\N{BEAR FACE}", 8))),
        ("misc", ()),
        ("sedic", tuple(region(f"thing {n}", (16, 32, 64)[n % 3]) for n in range(8))),
    ],
)
@pytest.mark.parametrize("caption", [None, "", "two\nlines"])
def test_given_objects_go_there_and_back(
    server: TestClient,
    photo: Image.Image,
    profile: str,
    objects: tuple[Region, ...],
    caption: str | None,
) -> None:
    fields = {"profile": profile, "bytes": "1200", "objects": json.dumps(plain_objects(objects))}
    fields |= {} if caption is None else {"caption": caption}
    _, facts = there_and_back(server, photo, **fields)
    assert description_of(facts["description"]) == Description(SEEN if caption is None else caption, objects)


@pytest.mark.usefixtures("words")
def test_what_describe_finds_can_be_given_back(server: TestClient, photo: Image.Image) -> None:
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    for profile, side in (("misc", 8), ("sedic", 16)):
        headers = {"content-type": "image/png"}
        path = f"/v1/describe?mask_side={side}"
        seen = server.post(path, content=buffer.getvalue(), headers=headers).json()
        given = {"caption": seen["caption"], "objects": json.dumps(seen["objects"])}
        _, facts = there_and_back(server, photo, profile=profile, bytes="600", **given)
        assert facts["description"] == seen


@pytest.mark.usefixtures("words")
def test_words_too_dear_for_the_budget_are_left_out_one_after_another(
    server: TestClient, photo: Image.Image
) -> None:
    said = []
    for budget in (2500, 525, 140):
        response = encode(server, photo, profile="sedic", bytes=str(budget))
        assert costs(response) == len(response.content) <= budget
        said.append(response.headers.get_list("x-picogram-warning"))
    assert [len(warnings) for warnings in said] == [0, 1, 3]
    assert [w.split(" left out")[0] for w in said[-1]] == [
        "the details of objects were",
        'the object "suit" was',
        "the caption was",
    ]
    assert parse(response.content).header.profile.name == "BASE"
    dear = encode(
        server, photo, profile="misc", bytes="20", objects=json.dumps(plain_objects([region("dog", 8)]))
    )
    check_problem(dear, 422, "budget-too-small")


@pytest.mark.usefixtures("words")
def test_clients_give_objects_and_get_them_back(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = (region("dog", 16, "wet"), region("\N{BEAR FACE}", 64))
    monkeypatch.chdir(tmp_path)
    photo.save("a.png")
    with listening() as url, picogram.Client(url, timeout=60) as client:
        encoded = client.encode(photo, bytes=900, profile="sedic", objects=objects)
        assert (encoded.caption, encoded.sections["objects"] > 0) == (SEEN, True)
        Path("objects.json").write_text(json.dumps(plain_objects(objects)))
        options = ["--profile", "sedic", "--bytes", "900", "--objects", "objects.json", "--server", url]
        assert main(["encode", "a.png", *options]) == 0
        assert capsys.readouterr().out.splitlines()[2:] == ["  object: dog: wet", "  object: \N{BEAR FACE}"]
        assert Path("a.pico").read_bytes() == encoded.data
        assert client.inspect(encoded.data).details["objects"].text == "dog: wet; \N{BEAR FACE}"
        assert len(client.describe(photo, mask_side=16).objects[0].mask) == 16
        with pytest.raises(UsageError, match="side of 8, not 16"):
            client.encode(photo, profile="misc", objects=objects)
    decoded = picogram.decode_detailed(encoded.data, steps=0, words=Words(TextCoder()))
    assert decoded.description == Description(SEEN, objects)


@pytest.mark.lmm
@pytest.mark.slow
def test_every_profile_with_the_models_that_people_have(
    server: TestClient, photos: list[Image.Image]
) -> None:
    if not store.text_available() or any(store.state(name) != "pulled" for name in store.remotes()):
        pytest.skip("the models for words have not been pulled")
    for profile in PROFILES:
        _, facts = there_and_back(server, photos[1], profile=profile, bytes="700")
        assert facts["profile"] == profile
        if profile in ("misc", "sedic"):
            assert "cat" in [each["name"] for each in facts["description"]["objects"]]
            assert facts["details"]["objects"]["coder"].startswith("exact-lm")
