# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words through the embedded server: the shipped picture model, a captioner that tests bring, and no language model.

The last test takes the real language model and runs only where it has been pulled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gateway_apps import check_problem, costs, result_of, until_ready
from PIL import Image
from starlette.testclient import TestClient

import picogram
from picogram.bitstream import Picogram, parse, serialise
from picogram.errors import ModelMissing, UnreadableImage, UsageError
from picogram.jobs import Job, Outcome, Result
from picogram.models import store
from picogram.pipeline.handovers import WordsRead, WordsToWrite
from picogram.pipeline.prepare import PreparedWords, WordsVariant
from picogram.semantics.description import Description, Region
from picogram.semantics.plain import description_of, plain_description
from picogram.semantics.words import ReadText, TextSections, Words
from picogram.text.coder import TextCoder
from picogram.text.lm import loading_lm
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend
from picogram_lmm import lmm_handler as lmm

PICOGRAM = {"content-type": "application/vnd.picogram"}
IMAGE = {"content-type": "image/png"}
SEEN = "Quarterly zebras negotiate turquoise tariffs."
CAPTIONS = [
    "A woman in an orange suit in front of a flag.",
    "",
    "two\nlines\tand <|im_end|> \x07",
    "\N{BEAR FACE}\u200d\N{SNOWFLAKE} \u05d3\u05d5\u05d1 \u4e00\u53ea\u718a",
    "long " * 400,
]


class Captioner:
    """Says the same of every picture, with one object in its lower half."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        mask = np.zeros((side, side), np.bool_)
        mask[side // 2 :] = True
        return [Description(SEEN, (Region("suit", "orange", mask),))] * len(pictures)


class Absent:
    """A captioner that has not been pulled."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        raise ModelMissing("features-1.safetensors is missing: run `picogram models pull features`")


class Broken(Words):
    """An engine that fails at texts."""

    def read(self, files: Sequence[Picogram]) -> list[ReadText]:
        raise RuntimeError("the engine died of a secret")


@pytest.fixture(scope="module")
def server() -> Iterator[TestClient]:
    with TestClient(
        create_app(GatewaySettings(), embedded_backend()), raise_server_exceptions=False
    ) as client:
        yield until_ready(client)


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Words:
    """Words without a language model, which is what a fresh installation has, whatever other tests have loaded."""
    monkeypatch.setenv("PICOGRAM_CACHE", str(tmp_path))
    monkeypatch.setattr(loading_lm, "load_lm_coder", loading_lm.load_lm_coder.__wrapped__)
    for name in ("load_exact_lm", "load_tokenizer"):
        monkeypatch.setattr(loading_lm, name, getattr(loading_lm, name).__wrapped__)
    words = Words(captioner=Captioner())
    serve(monkeypatch, words)
    return words


@pytest.fixture(scope="module")
def photo(photos: list[Image.Image]) -> Image.Image:
    """A small one, since these tests are not about pictures."""
    return photos[0].resize((96, 64))


def serve(monkeypatch: pytest.MonkeyPatch, words: Words) -> None:
    monkeypatch.setattr(lmm, "default_words", lambda: words)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def encode(server: TestClient, photo: Image.Image, caption: str | None, size: int = 900) -> bytes:
    fields = {"profile": "stc", "bytes": str(size)} | ({} if caption is None else {"caption": caption})
    response = server.post("/v1/encode", data=fields, files={"image": ("photo.png", png(photo))})
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_goes_there_and_back(server: TestClient, photo: Image.Image, caption: str) -> None:
    form = {"profile": "stc", "bytes": "1500", "caption": caption}
    encoded = server.post("/v1/encode", data=form, files={"image": ("photo.png", png(photo))})
    told = result_of(server, encoded)
    assert told["description"] == {"caption": caption, "objects": []}
    assert costs(encoded) == len(encoded.content) <= 1500
    size = len(parse(encoded.content).optional["caption"])
    assert encoded.headers["x-picogram-caption-bytes"] == str(told["sections"]["caption"]) == str(size)
    [warning] = encoded.headers.get_list("x-picogram-warning")
    assert "picogram models pull text" in warning
    decoded = server.post("/v1/decode", content=encoded.content, headers=PICOGRAM)
    assert result_of(server, decoded)["description"]["caption"] == caption
    assert "x-picogram-warning" not in decoded.headers
    assert Image.open(io.BytesIO(decoded.content)).size == photo.size
    facts = server.post("/v1/inspect", content=encoded.content, headers=PICOGRAM).json()
    assert facts["description"] == {"caption": caption, "objects": []}
    assert (facts["details"]["caption"]["text"], facts["details"]["caption"]["bytes"]) == (caption, size)
    assert facts["header_bytes"] + sum(facts["sections"].values()) == len(encoded.content)


def test_without_a_caption_the_captioner_is_asked(server: TestClient, photo: Image.Image) -> None:
    response = server.post("/v1/encode?profile=stc&quality=30", content=png(photo), headers=IMAGE)
    assert result_of(server, response)["description"]["caption"] == SEEN
    assert response.headers["x-picogram-objects-bytes"] == "0"


def test_the_server_writes_words_as_the_library_does(
    server: TestClient, photo: Image.Image, words: Words
) -> None:
    assert encode(server, photo, None) == picogram.encode(photo, bytes=900, profile="stc", words=words)


def test_a_caption_too_dear_for_the_budget_is_left_out(server: TestClient, photo: Image.Image) -> None:
    response = server.post("/v1/encode?profile=stc&bytes=60", content=png(photo), headers=IMAGE)
    assert "link" not in response.headers
    assert response.headers["x-picogram-caption-bytes"] == "0"
    assert "left out" in response.headers.get_list("x-picogram-warning")[-1]
    assert costs(response) == len(response.content) <= 60


def test_describe(server: TestClient, photo: Image.Image) -> None:
    response = server.post("/v1/describe", content=png(photo), headers=IMAGE)
    mask = ["........"] * 4 + ["########"] * 4
    assert response.json() == {
        "caption": SEEN,
        "objects": [{"name": "suit", "detail": "orange", "mask": mask}],
    }
    check_problem(server.post("/v1/describe", content=b"hello", headers=IMAGE), 422, "unreadable-image")


def test_a_missing_captioner_is_only_missed_where_it_is_needed(
    server: TestClient, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, Words(captioner=Absent()))
    for path in ("/v1/encode?profile=stc", "/v1/describe"):
        problem = check_problem(server.post(path, content=png(photo), headers=IMAGE), 503, "model-missing")
        assert "picogram models pull features" in problem["detail"]
    assert parse(encode(server, photo, "A caption of my own.")).optional


def test_damaged_words_leave_the_picture(server: TestClient, photo: Image.Image) -> None:
    data = encode(server, photo, CAPTIONS[0])
    whole = server.post("/v1/decode", content=data, headers=PICOGRAM)
    hurt = bytearray(data)
    hurt[-10] ^= 1
    response = server.post("/v1/decode", content=bytes(hurt), headers=PICOGRAM)
    assert response.content == whole.content
    assert "link" not in response.headers
    [warning] = response.headers.get_list("x-picogram-warning")
    assert "damaged" in warning
    facts = server.post("/v1/inspect", content=bytes(hurt), headers=PICOGRAM).json()
    assert (facts["description"], facts["warnings"]) == (None, [warning])
    assert facts["checks"] == {"picture": "ok", "words": "damaged"}


def test_words_of_a_missing_model_leave_the_picture(server: TestClient, photo: Image.Image) -> None:
    file = parse(encode(server, photo, "a"))
    exact = serialise(replace(file, optional={"caption": b"\0"}))  # the first coder's id is exact-lm's
    response = server.post("/v1/decode", content=exact, headers=PICOGRAM)
    assert Image.open(io.BytesIO(response.content)).size == photo.size
    [warning] = response.headers.get_list("x-picogram-warning")
    assert "picogram models pull text" in warning


def test_a_broken_engine_leaves_the_picture(
    server: TestClient, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(server, photo, CAPTIONS[0])
    serve(monkeypatch, Broken(TextCoder()))
    response = server.post("/v1/decode", content=data, headers=PICOGRAM)
    assert response.headers.get_list("x-picogram-warning") == ["the words could not be read"]
    assert Image.open(io.BytesIO(response.content)).size == photo.size


def test_bad_images_fail_before_anything_is_said_of_them(server: TestClient, photo: Image.Image) -> None:
    response = server.post("/v1/encode?profile=stc&caption=x", content=b"hello", headers=IMAGE)
    check_problem(response, 422, "unreadable-image")
    cramped = server.post("/v1/encode?profile=stc&caption=x&bytes=12", content=png(photo), headers=IMAGE)
    check_problem(cramped, 422, "budget-too-small")


def test_models_for_words_are_listed(server: TestClient) -> None:
    listed = server.get("/v1/models").json()
    assert listed["profiles"] == ["base", "stc", "misc", "taco", "sedic"]
    assert {each["kind"]: each["state"] for each in listed["text_models"]} == {
        "text": "not pulled",
        "features": "not pulled",
    }


def task(name: str, payload: bytes, **options: object) -> Job:
    return Job("encode", payload, (f"lmm:{name}",), {"profile": "stc", **options})


def run(words: Words, jobs: list[Job]) -> list[Outcome]:
    return lmm.LmmHandler(words)(jobs)


def test_one_bad_picture_in_a_batch_fails_alone(photo: Image.Image, words: Words) -> None:
    good = png(photo)
    outcomes = run(words, [task("code", good), task("code", b"hello"), task("code", good, caption="Mine.")])
    assert isinstance(outcomes[1], UnreadableImage)
    said = [json.loads(json.dumps(o.metadata)) for o in outcomes if isinstance(o, Result)]
    left = [each.prepared.variants for facts in said if (each := WordsToWrite.of(facts))]
    fullest = [variants[0] for variants in left]
    assert [each.description and each.description.caption for each in fullest] == [SEEN, "Mine."]
    assert [variants[-1].description is None for variants in left] == [True, False]
    coded = [each.sections.optional["caption"] for each in fullest]
    assert TextCoder().decode(coded) == [SEEN, "Mine."]


def test_pictures_are_described_a_few_at_a_time(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmm, "PIXELS_AT_ONCE", 2 * photo.width * photo.height)
    sizes: list[int] = []

    class Counting(Captioner):
        def describe(
            self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
        ) -> list[Description]:
            sizes.append(len(pictures))
            return super().describe(pictures)

    outcomes = run(Words(captioner=Counting()), [task("describe", png(photo)) for _ in range(5)])
    assert sizes == [2, 2, 1]
    assert all(isinstance(outcome, Result) for outcome in outcomes)


def test_files_are_read_in_one_batch(server: TestClient, photo: Image.Image) -> None:
    files = [encode(server, photo, caption) for caption in ("one", "two")]

    class Counting(Words):
        sizes: tuple[int, ...] = ()

        def read(self, files: Sequence[Picogram]) -> list[ReadText]:
            self.sizes += (len(files),)
            return super().read(files)

    words = Counting(TextCoder())
    outcomes = run(words, [task("read", files[0]), task("read", b"no file"), task("read", files[1])])
    assert words.sizes == (2,)
    assert isinstance(outcomes[1], picogram.PicogramError)
    read = [WordsRead.of(o.metadata) for o in outcomes if isinstance(o, Result)]
    assert [each and each.text.description for each in read] == [Description("one"), Description("two")]


def test_unknown_tasks_are_refused(words: Words) -> None:
    with pytest.raises(UsageError, match="translate"):
        run(words, [task("translate", b"")])


@pytest.mark.parametrize("side", [8, 16])
def test_words_travel_as_plain_values(side: int) -> None:
    mask = np.random.default_rng(side).random((side, side)) < 0.5
    description = Description("a\n\N{BEAR FACE}", (Region("bear", "", mask), Region("ice", "thin", ~mask)))
    assert description_of(json.loads(json.dumps(plain_description(description)))) == description
    sections = TextSections(bytes(range(256)), b"")
    left = WordsToWrite(PreparedWords((WordsVariant(sections, description),)))
    back = WordsToWrite.of(json.loads(json.dumps(left.facts())))
    assert back == left


@pytest.mark.lmm
@pytest.mark.slow
def test_the_language_model_codes_what_the_server_says(
    server: TestClient, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the cache is where it was
    if not store.text_available():
        pytest.skip("the language model has not been pulled")
    serve(monkeypatch, Words(captioner=Captioner()))
    params = {"profile": "stc", "bytes": "900", "caption": CAPTIONS[0]}
    encoded = server.post("/v1/encode", params=params, content=png(photo), headers=IMAGE)
    assert "x-picogram-warning" not in encoded.headers
    assert int(encoded.headers["x-picogram-caption-bytes"]) < len(CAPTIONS[0]) / 2
    assert costs(encoded) == len(encoded.content) <= 900
    decoded = server.post("/v1/decode", content=encoded.content, headers=PICOGRAM)
    assert result_of(server, decoded)["description"]["caption"] == CAPTIONS[0]
    facts = server.post("/v1/inspect", content=encoded.content, headers=PICOGRAM).json()
    assert facts["details"]["caption"]["coder"].startswith("exact-lm")
