# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captions that the encoder listens to, and what matters most, through the embedded server: the shipped picture models,
and words that hear and find places without a language model.

The last test takes the real language model and runs only where it has been pulled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2
import numpy as np
import pytest
from gateway_apps import check_problem, costs, result_of, until_ready
from hearing_words import NOWHERE, HearingWords
from PIL import Image
from starlette.testclient import TestClient

import picogram
from picogram.bitstream import parse
from picogram.errors import ModelMissing, UsageError
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.isolation import run_isolated
from picogram.jobs.redis.envelope import read_job, write_job
from picogram.latent.focus import Focus
from picogram.models import store
from picogram.pipeline.handovers import JobReport, WordsToWrite
from picogram.pipeline.prepare import PreparedWords
from picogram.request import EncodeOptions
from picogram.results import Encoded
from picogram.semantics.description import Description
from picogram.semantics.plain import mask_of, plain_mask
from picogram_encoder import encoder_handler as encoder
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import embedded_backend
from picogram_lmm import lmm_handler as lmm

SEEN = "A rocket in the night."
MASK = np.zeros((16, 16), np.bool_)
MASK[2:9, 5:] = True


class Captioner:
    """Sees the same in every picture, but fails at those that are blue."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        if any(picture.getpixel((0, 0)) == (0, 0, 255) for picture in pictures):
            raise RuntimeError("too blue")
        return [Description(SEEN)] * len(pictures)


class Absent:
    """A captioner that has not been pulled."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        raise ModelMissing("features-1.safetensors is missing: run `picogram models pull features`")


@pytest.fixture(scope="module")
def server() -> Iterator[TestClient]:
    with TestClient(
        create_app(GatewaySettings(), embedded_backend()), raise_server_exceptions=False
    ) as client:
        yield until_ready(client)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> HearingWords:
    words = HearingWords(Captioner())
    monkeypatch.setattr(lmm, "default_words", lambda: words)
    return words


@pytest.fixture(scope="module")
def photo(photos: list[Image.Image]) -> Image.Image:
    return photos[0].resize((96, 64))


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def post(server: TestClient, photo: Image.Image, **fields: str) -> httpx2.Response:
    return server.post("/v1/encode", data=fields, files={"image": ("photo.png", png(photo))})


def encode(server: TestClient, photo: Image.Image, **fields: str) -> tuple[bytes, str | None]:
    """The file, and what its job says was heard, after checking that it draws and that its costs add up."""
    response = post(server, photo, **fields)
    assert response.status_code == 200, response.text
    assert costs(response) == len(response.content)
    drawn = server.post("/v1/decode?steps=0", content=response.content)
    assert Image.open(io.BytesIO(drawn.content)).size == photo.size
    heard = result_of(server, response)["heard"] if "link" in response.headers else None
    return response.content, heard


# --- there and back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "heard"), [("A red\nb\u00f6at \N{BEAR FACE}", ...), (None, SEEN), ("", None), (" ", None)]
)
def test_taco_listens_to_a_caption_that_is_not_in_the_file(
    server: TestClient, photo: Image.Image, words: HearingWords, caption: str | None, heard: Any
) -> None:
    heard = caption if heard is ... else heard
    given = {} if caption is None else {"caption": caption}
    data, said = encode(server, photo, profile="taco", bytes="300", **given)
    assert said == heard
    assert words.heard == ([] if heard is None else [heard])
    file = parse(data)
    assert (file.header.profile.name, file.optional) == ("TACO", {})
    assert data == picogram.encode(photo, bytes=300, profile="taco", caption=caption, words=words)


@pytest.mark.parametrize("profile", ["base", "stc", "taco"])
def test_words_and_masks_move_bits_as_in_the_library(
    server: TestClient, photo: Image.Image, words: HearingWords, profile: str
) -> None:
    given = {"profile": profile, "bytes": "400"} | ({} if profile == "base" else {"caption": "A boat."})
    plain, _ = encode(server, photo, **given)
    options: dict[str, Any] = {"bytes": 400, "profile": profile, "words": words}
    options |= {} if profile == "base" else {"caption": "A boat."}
    named, _ = encode(server, photo, **given, focus="the red boat")
    assert named == picogram.encode(photo, focus="the red boat", **options)
    drawn, _ = encode(server, photo, **given, focus_mask=json.dumps(plain_mask(MASK)))
    assert drawn == picogram.encode(photo, focus=MASK, **options)
    assert len({plain, named, drawn}) == 3


@pytest.mark.usefixtures("words")
def test_what_is_not_there_is_a_problem(server: TestClient, photo: Image.Image) -> None:
    check_problem(post(server, photo, focus=NOWHERE), 422, "usage")
    check_problem(post(server, photo, profile="taco", focus="a", focus_mask="[]"), 422, "usage")


def test_a_picture_that_nobody_can_describe_is_coded_by_itself(
    server: TestClient, words: HearingWords
) -> None:
    response = post(server, Image.new("RGB", (64, 48), "blue"), profile="taco", bytes="200")
    assert response.status_code == 200
    (warning,) = response.headers.get_list("x-picogram-warning")
    assert "too blue" in warning
    assert "coded from the picture alone" in warning
    assert "link" not in response.headers
    assert words.heard == []


def test_without_a_captioner_taco_codes_the_picture_alone(
    server: TestClient, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmm, "default_words", lambda: HearingWords(Absent()))
    response = post(server, photo, profile="taco", bytes="300")
    (warning,) = response.headers.get_list("x-picogram-warning")
    assert "picogram models pull features" in warning
    assert "link" not in response.headers
    assert parse(response.content).header.profile.name == "TACO"
    data, heard = encode(server, photo, profile="taco", bytes="300", caption="Mine.")
    assert (len(data) > 100, heard) == (True, "Mine.")


# --- between the steps --------------------------------------------------------------------------------------


def coding(payload: bytes, **options: object) -> Job:
    profile = str(options.setdefault("profile", "taco"))
    return Job("encode", payload, ("lmm:code", "encoder"), options, compatibility=profile)


def moved(job: Job, outcome: Outcome) -> Job:
    """The job at its next step, after a journey through a job store."""
    assert isinstance(outcome, Result)
    following = job.after(outcome)
    assert isinstance(following, Job)
    return read_job(write_job(following, "blob"), following.payload, 1)


def reported(outcome: Outcome) -> Mapping[str, Any]:
    """What the encoder says of its file."""
    assert isinstance(outcome, Result)
    report = JobReport.of(outcome.metadata)
    assert report is not None
    return report.result


def left_behind(outcome: Result) -> PreparedWords:
    """What the encoder finds."""
    left = WordsToWrite.of(outcome.metadata)
    assert left is not None
    return left.prepared


def test_hints_travel_to_the_encoder_and_no_further(
    photo: Image.Image, words: HearingWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[PreparedWords] = []

    def assemble(picture: Image.Image, given: PreparedWords, *more: Any) -> Encoded:
        prepared.append(given)
        return picogram.api.assemble(picture, given, *more)

    monkeypatch.setattr(encoder, "assemble", assemble)
    job = coding(png(photo), caption="A red boat.", focus="the boat", bytes=300)
    (coded,) = lmm.LmmHandler(words)([job])
    (outcome,) = encoder.handler([moved(job, coded)])
    (given,) = prepared
    (states,), focus = words.hear(["A red boat."]), words.place(photo, "the boat")
    assert given.hints.heard == "A red boat."
    assert given.hints.states is not None
    assert np.array_equal(given.hints.states, states)
    assert given.hints.focus is not None
    assert np.array_equal(given.hints.focus.weights, focus.weights)
    assert isinstance(outcome, Result)
    assert reported(outcome)["heard"] == "A red boat."
    assert outcome.metadata["words_to_write"] is None


def test_a_mask_takes_the_place_of_nothing_else(photo: Image.Image, words: HearingWords) -> None:
    job = coding(png(photo), caption="A red boat.", bytes=300, focus_mask=plain_mask(MASK))
    (coded,) = lmm.LmmHandler(words)([job])
    (outcome,) = encoder.handler([moved(job, coded)])
    assert isinstance(outcome, Result)
    assert reported(outcome)["heard"] == "A red boat."
    hints = {"caption": "A red boat.", "focus": MASK, "words": words}
    assert outcome.payload == picogram.encode(photo, bytes=300, profile="taco", **hints)  # type: ignore[arg-type]


def test_a_mask_that_no_gateway_lets_pass_fails_its_job_alone(photo: Image.Image) -> None:
    masks = [["#" * 8] * 8, ["?" * 8] * 8, plain_mask(MASK)]
    jobs = [Job("encode", png(photo), ("encoder",), {"profile": "base", "focus_mask": m}) for m in masks]
    *bad, good = encoder.handler(jobs)
    assert all(isinstance(outcome, UsageError) for outcome in bad)
    assert isinstance(good, Result)


def test_one_job_of_a_batch_fails_alone(photo: Image.Image, words: HearingWords) -> None:
    jobs = [
        coding(png(photo), focus=NOWHERE),
        coding(png(photo)),
        coding(b"hello"),
        coding(png(photo), focus=" "),
        coding(png(Image.new("RGB", (64, 48), "blue"))),
        coding(png(photo), caption="Mine.", focus="a boat"),
    ]
    outcomes = run_isolated(lmm.LmmHandler(words), jobs)
    said = [
        left_behind(outcome).hints.heard if isinstance(outcome, Result) else type(outcome).__name__
        for outcome in outcomes
    ]
    assert said == ["UsageError", SEEN, "UnreadableImage", "UsageError", None, "Mine."]


def test_hints_of_the_longest_caption_fit_a_job() -> None:
    prepared = picogram.api.prepare(
        [Image.new("RGB", (64, 48))],
        [EncodeOptions(profile="taco", caption="word " * 63, focus="a boat")],
        words=HearingWords(Captioner()),
    )
    hints = prepared[0].hints
    assert hints.states is not None
    assert len(hints.states) == 64
    assert len(json.dumps(WordsToWrite(prepared[0]).facts())) < 110_000


def test_masks_are_read_as_they_were_written() -> None:
    for side in (8, 16, 32, 64):
        mask = np.random.default_rng(side).random((side, side)) > 0.5
        assert np.array_equal(mask_of(plain_mask(mask)), mask)
        assert Focus.of(mask).weights.max() == 1


@pytest.mark.lmm
@pytest.mark.slow
def test_the_models_that_people_have(server: TestClient, photos: list[Image.Image]) -> None:
    if not store.text_available() or any(store.state(name) != "pulled" for name in store.remotes()):
        pytest.skip("the models for words have not been pulled")
    photo = photos[1]
    data, heard = encode(server, photo, profile="taco", bytes="700", focus="a cat's face")
    encoded = picogram.encode_detailed(photo, bytes=700, profile="taco", focus="a cat's face")
    assert (data, heard) == (encoded.data, encoded.heard)
    assert heard
    plain, _ = encode(server, photo, profile="base", bytes="700")
    named, _ = encode(server, photo, profile="base", bytes="700", focus="a cat's face")
    assert named == picogram.encode(photo, bytes=700, focus="a cat's face") != plain
