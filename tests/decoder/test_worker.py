# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder worker: what callers may say about drawing, previews and progress, and that jobs of a batch stay apart."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_denoiser import TinyDenoiser

import picogram
from picogram.environment import read_settings
from picogram.errors import CorruptBitstream, JobCanceled, JobFailed, ModelMissing, NotAPicogram, UsageError
from picogram.images import read_image
from picogram.jobs import Job, Outcome, Result
from picogram.pipeline.handovers import JobReport, WordsRead
from picogram_decoder.decoder_handler import (
    PREVIEW_BYTES,
    PREVIEW_SIDE,
    DecoderHandler,
    load_handler,
    preview_of,
)
from picogram_decoder.decoder_settings import DecoderSettings

Told = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def file(photos: list[Image.Image]) -> bytes:
    return picogram.encode(photos[2], bytes=250)


@pytest.fixture
def denoiser() -> TinyDenoiser:
    return TinyDenoiser()


@pytest.fixture
def handler(denoiser: TinyDenoiser) -> DecoderHandler:
    return DecoderHandler(denoiser, "tiny")


def job(file: bytes, facts: dict[str, Any] | None = None, **options: Any) -> Job:
    return Job("decode", file, ("decoder",), options, facts=facts or {})


def watched(job: Job, react: Callable[[str], None] = lambda name: None) -> Told:
    """What the handler tells of a job; ``react`` may do something about it."""
    told: Told = []

    def listen(name: str, data: Any) -> None:
        told.append((name, data))
        react(name)

    job.control.listen(listen)
    return told


def left(description: dict[str, Any] | None) -> dict[str, Any]:
    """The facts of a job whose words have been read."""
    plain = {"version": WordsRead.VERSION, "description": description, "coders": {}, "problems": {}}
    return {WordsRead.NAME: plain}


def reported(outcome: Result) -> Mapping[str, Any]:
    """What is said of the picture."""
    report = JobReport.of(outcome.metadata)
    assert report is not None
    return report.result


def picture(outcome: Outcome) -> Image.Image:
    assert isinstance(outcome, Result), outcome
    return read_image(outcome.payload)


def pixels(outcome: Outcome) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(picture(outcome))


# --- what callers may say ------------------------------------------------------------------------------------------


def test_no_steps_give_the_base_picture(handler: DecoderHandler, denoiser: TinyDenoiser, file: bytes) -> None:
    (outcome,) = handler([job(file, steps=0, seed=5)])
    assert np.array_equal(pixels(outcome), np.asarray(picogram.decode(file, steps=0)))
    assert isinstance(outcome, Result)
    drawing = {"stages": 0, "steps": 0, "guidance": None, "seed": 5, "model": "tiny"}
    facts = {"width": 300, "height": 200, "description": None, "drawing": drawing}
    assert (outcome.media_type, reported(outcome)) == ("image/png", facts)
    assert outcome.metadata.keys() == {"report", "words_read"}
    assert denoiser.steps == 0


def test_steps_and_seed_decide_what_is_imagined(handler: DecoderHandler, file: bytes) -> None:
    wishes: list[dict[str, Any]] = [{"steps": 0}, {"steps": 1}, {"steps": 3}, {"steps": 3, "seed": 2**32 - 1}]
    drawn = [pixels(handler([job(file, **wish)])[0]).tobytes() for wish in wishes]
    assert len(set(drawn)) == 4
    assert pixels(handler([job(file, steps=3)])[0]).tobytes() == drawn[2]


def test_options_that_say_nothing_leave_it_to_the_profile(handler: DecoderHandler, file: bytes) -> None:
    nothing, unset = handler([job(file), job(file, steps=None, guidance=None, seed=0)])
    assert isinstance(nothing, Result)
    assert isinstance(unset, Result)
    assert nothing.payload == unset.payload
    drawing = reported(nothing)["drawing"]
    assert drawing["steps"] >= 0
    told = {"steps": drawing["steps"], "seed": drawing["seed"]}
    assert handler([job(file, **told)])[0] == nothing


def test_the_answer_says_how_it_was_drawn(handler: DecoderHandler, file: bytes) -> None:
    (outcome,) = handler([job(file, steps=2, guidance=1.5, seed=7, media_type="image/webp")])
    assert isinstance(outcome, Result)
    assert picture(outcome).size == (300, 200)
    assert outcome.media_type == "image/webp"
    assert reported(outcome)["drawing"] == {
        "stages": 1,
        "steps": 2,
        "guidance": 1.5,
        "seed": 7,
        "model": "tiny",
    }


def test_the_words_that_were_read_are_what_is_drawn_by(
    handler: DecoderHandler, denoiser: TinyDenoiser, photo: Image.Image
) -> None:
    words = {
        "caption": "a red suit",
        "objects": [{"name": "helmet", "detail": "white", "mask": ["#......."] * 8}],
    }
    file = picogram.encode(photo, bytes=600, profile="misc", caption="not read here")
    (outcome,) = handler([job(file, left(words), steps=1)])
    assert isinstance(outcome, Result)
    assert picture(outcome).size == photo.size
    assert [prompt for prompt in denoiser.prompts if prompt] == ["helmet, white", "a red suit"]
    denoiser.prompts.clear()
    assert outcome.metadata["words_read"] is None
    assert reported(outcome)["description"] == words
    handler([job(file, left(None), steps=1)])
    assert not any(denoiser.prompts)


def test_pictures_of_one_size_share_their_steps_where_a_model_gains_by_it(
    handler: DecoderHandler, denoiser: TinyDenoiser, file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser, "batch_pixels", 4 * 2**20)
    together = handler([job(file, steps=2, seed=seed) for seed in (1, 2)])
    assert denoiser.sizes == [2]
    for seed, outcome in zip((1, 2), together, strict=True):
        (alone,) = handler([job(file, steps=2, seed=seed)])
        assert np.abs(pixels(alone).astype(int) - pixels(outcome)).max() <= 2


# --- what is told on the way ---------------------------------------------------------------------------------------


def test_the_base_picture_comes_first_and_then_progress(handler: DecoderHandler, file: bytes) -> None:
    asked = job(file, steps=4)
    told = watched(asked)
    handler([asked])
    assert [name for name, _ in told] == ["preview", *["progress"] * 4]
    assert [data["fraction"] for _, data in told[1:]] == [0.25, 0.5, 0.75, 1.0]
    assert told[0][1]["media_type"] == "image/webp"
    early = read_image(told[0][1]["data"])
    base = picogram.decode(file, steps=0)
    assert early.size == base.size
    assert np.abs(np.asarray(early, int) - np.asarray(base, int)).mean() < 8


@pytest.mark.parametrize(
    ("size", "shown"), [((40, 30), (40, 30)), ((4000, 1000), (512, 128)), ((3000, 1), (512, 1))]
)
def test_previews_are_small(size: tuple[int, int], shown: tuple[int, int]) -> None:
    data = preview_of(Image.new("RGB", size, "teal"))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", shown)


def test_previews_of_noise_are_smaller_still() -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (700, 700, 3), np.uint8))
    data = preview_of(noise)
    assert len(data) <= PREVIEW_BYTES
    assert max(read_image(data).size) <= PREVIEW_SIDE


# --- jobs stay apart ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "preview", "progress"])
def test_a_canceled_job_ends_and_the_others_go_on(handler: DecoderHandler, file: bytes, when: str) -> None:
    jobs = [job(file, steps=3, seed=seed) for seed in (1, 2, 3)]
    told = watched(jobs[1], lambda name: jobs[1].control.cancel() if name == when else None)
    if when == "before":
        jobs[1].control.cancel()
    first, canceled, last = handler(jobs)
    assert isinstance(canceled, JobCanceled)
    assert [name for name, _ in told] == {
        "before": [],
        "preview": ["preview", "progress"],
        "progress": ["preview", "progress"],
    }[when]
    for seed, outcome in ((1, first), (3, last)):
        (alone,) = handler([job(file, steps=3, seed=seed)])
        assert np.abs(pixels(alone).astype(int) - pixels(outcome)).max() <= 2


def test_when_nobody_wants_any_of_them_the_steps_end(
    handler: DecoderHandler, denoiser: TinyDenoiser, file: bytes
) -> None:
    asked = job(file, steps=50)
    watched(asked, lambda name: asked.control.cancel() if name == "progress" else None)
    (outcome,) = handler([asked])
    assert isinstance(outcome, JobCanceled)
    assert denoiser.steps == 1


def test_bad_jobs_fail_alone(handler: DecoderHandler, file: bytes) -> None:
    words = {"caption": "", "objects": [{"name": "x", "detail": "", "mask": ["##", "#"]}]}
    bad: list[tuple[Job, type[Exception]]] = [
        (job(b"no file"), NotAPicogram),
        (job(file[:-1]), CorruptBitstream),
        (job(file, steps=51), UsageError),
        (job(file, steps=1.5), UsageError),
        (job(file, guidance=float("nan")), UsageError),
        (job(file, seed=-1), UsageError),
        (job(file, media_type="text/html"), UsageError),
        (job(file, left(words)), UsageError),
        (job(file, {"words_read": {**left(None)["words_read"], "version": 2}}), JobFailed),
    ]
    jobs = [job(file, steps=1), *(each for each, _ in bad), job(file, steps=1)]
    first, *failed, last = handler(jobs)
    for outcome, (_, error) in zip(failed, bad, strict=True):
        assert isinstance(outcome, error), outcome
    assert pixels(first).tobytes() == pixels(last).tobytes()


def test_an_empty_batch_is_no_work(handler: DecoderHandler) -> None:
    assert handler([]) == []


# --- which model ----------------------------------------------------------------------------------------------------


def test_warming_up_loads_the_model(handler: DecoderHandler, denoiser: TinyDenoiser) -> None:
    handler.warm_up()
    assert denoiser.steps == 1


def test_a_missing_model_ends_the_warm_up_but_base_pictures_still_come(
    monkeypatch: pytest.MonkeyPatch, file: bytes
) -> None:
    def missing() -> None:
        raise ModelMissing("diffusion-2 is missing")

    monkeypatch.setattr("picogram.diffusion.embedded.load_denoiser", missing)
    handler = DecoderHandler()
    with pytest.raises(ModelMissing):
        handler.warm_up()
    with pytest.raises(ModelMissing):
        handler([job(file, steps=1)])
    assert picture(handler([job(file, steps=0)])[0]).size == (300, 200)


def test_the_setting_chooses_the_model(
    monkeypatch: pytest.MonkeyPatch, denoiser: TinyDenoiser, file: bytes
) -> None:
    asked: list[str] = []

    class Hub:
        @staticmethod
        def load_hub_denoiser(name: str) -> TinyDenoiser:
            asked.append(name)
            return denoiser

    monkeypatch.setitem(sys.modules, "picogram_decoder.hub", Hub)
    monkeypatch.setitem(sys.modules, "picogram_decoder.hub.hub_load", Hub)
    monkeypatch.setenv("PICOGRAM_DECODER_MODEL", "")
    load_handler(read_settings(DecoderSettings))
    assert asked == []
    monkeypatch.setenv("PICOGRAM_DECODER_MODEL", "sd-turbo")
    (outcome,) = load_handler(read_settings(DecoderSettings))([job(file, steps=1)])
    assert asked == ["sd-turbo"]
    assert isinstance(outcome, Result)
    assert reported(outcome)["drawing"]["model"] == "sd-turbo"
