# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Effort: the encoder searches for better integers, for the same format; how it is asked for, from everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_server import FakeServer, encoded, server
from gateway_apps import check_problem, image, latent, make_app
from live_gateway import Workers, listening
from PIL import Image
from starlette.testclient import TestClient

import picogram
import picogram_encoder.encoder_handler as encoder
from picogram.api import assemble
from picogram.bitstream import parse
from picogram.cli.main import main
from picogram.errors import JobCanceled, UsageError
from picogram.jobs import Job, Result
from picogram.latent import effort as search
from picogram.latent.codec import load_codec
from picogram.latent.effort import PASSES, PRICE, Refined, passes_of
from picogram.latent.unfolding import residuals_of, unfold
from picogram.pipeline.prepare import PreparedWords, WordsVariant
from picogram.request import EncodeOptions
from picogram.semantics.words import TextSections
from picogram_gateway.exchange import order_for_image

__all__ = ["server"]  # a fixture

BUDGET = 150
RATE = 90


@pytest.fixture(autouse=True)
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PASSES", (0, 4, 6))


@pytest.fixture(scope="module")
def small(photo: Image.Image) -> Image.Image:
    return photo.crop((40, 20, 40 + 150, 20 + 120))


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


# --- the search --------------------------------------------------------------------------------------------


def test_no_effort_is_what_it_was_before(small: Image.Image) -> None:
    assert picogram.encode(small, bytes=BUDGET, effort=0) == picogram.encode(small, bytes=BUDGET)
    assert picogram.encode(small, quality=30, effort=0) == picogram.encode(small, quality=30)


def test_a_searched_file_fits_is_another_and_any_decoder_reads_it(small: Image.Image) -> None:
    plain, better = (picogram.encode(small, bytes=BUDGET, effort=effort) for effort in (0, 1))
    assert plain != better
    assert 0.8 * BUDGET <= len(better) <= BUDGET
    assert picogram.decode(better).size == small.size
    assert parse(better).header == parse(plain).header


def test_the_same_picture_gives_the_same_bytes_whatever_the_global_generator(small: Image.Image) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = picogram.encode(small, quality=30, effort=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert picogram.encode(small, quality=30, effort=1) == first


def test_the_loss_falls_and_more_passes_find_no_worse(small: Image.Image) -> None:
    codec = load_codec()
    analysed = codec.analyse(np.asarray(small))
    plain, losses = codec.section(analysed, RATE), []
    for passes in (0, 2, 6):
        work = codec.refinement(analysed, RATE)
        section = codec.section(replace(analysed, refined=work.run(passes)), RATE)
        y, position = codec.latent(section, *small.size)
        losses.append(work.loss(y, position, len(section) / len(plain)))
    assert losses[0] == pytest.approx(1 + PRICE, rel=0.01)
    assert losses[2] < losses[1] < 0.98 * losses[0]


def test_a_quality_keeps_its_rate_and_its_size(small: Image.Image) -> None:
    plain, better = (picogram.encode(small, quality=30, effort=effort) for effort in (0, 1))
    assert plain != better
    assert len(better) <= len(plain)
    assert parse(plain).latent[0] == parse(better).latent[0]


def test_what_the_search_makes_worse_is_not_written(
    small: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: dict[str, dict[str, Any]] = {"bytes": {"bytes": 150}, "quality": {"quality": 30}}
    plain = {name: picogram.encode(small, **target) for name, target in targets.items()}

    def spoil(work: search.Refinement, passes: int) -> Refined:
        return Refined(torch.zeros_like(work.y), work.z)

    monkeypatch.setattr(search.Refinement, "run", spoil)
    assert picogram.encode(small, bytes=150, effort=1) == plain["bytes"]
    assert picogram.encode(small, quality=30, effort=2) == plain["quality"]


@pytest.mark.parametrize("effort", [1, 2])
def test_a_budget_is_never_exceeded(small: Image.Image, effort: int) -> None:
    for budget in (60, 101, 333):
        assert len(picogram.encode(small, bytes=budget, effort=effort)) <= budget


def test_a_focus_stays_in_focus(small: Image.Image) -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:6, 4:] = True
    inside = np.asarray(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST))
    focused = picogram.encode(small, bytes=BUDGET, focus=mask, effort=1)
    anywhere = picogram.encode(small, bytes=BUDGET, effort=1)
    assert focused != picogram.encode(small, bytes=BUDGET, focus=mask)

    def error(data: bytes) -> float:
        decoded = np.asarray(picogram.decode(data, steps=0), np.float64)
        return float(np.square(decoded - np.asarray(small, np.float64)).mean(2)[inside].mean())

    assert error(focused) < error(anywhere)


@pytest.mark.parametrize("profile", ["stc", "misc", "sedic", "taco"])
def test_every_profile_takes_it(small: Image.Image, profile: str) -> None:
    coded = {"stc": TextSections(b"caption"), "taco": TextSections()}
    words = WordsVariant(coded.get(profile, TextSections(b"caption", b"objects")))
    plain, better = (
        assemble(
            small, PreparedWords((words,)), EncodeOptions(bytes=BUDGET, profile=profile, effort=effort)
        ).data
        for effort in (0, 1)
    )
    assert plain != better
    assert len(better) <= BUDGET
    assert parse(better).optional == parse(plain).optional == words.sections.optional


def test_tiles_find_much_the_same(small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small.resize((512, 256))
    codec = load_codec()
    analysed, losses = codec.analyse(np.asarray(whole)), []
    plain = codec.section(analysed, RATE)
    for side in (search.TILE, 2):
        monkeypatch.setattr(search, "TILE", side)
        work = codec.refinement(analysed, RATE)
        work.halo = 2
        assert len(list(work._tiles())) == (1 if side > 2 else 4)
        section = codec.section(replace(analysed, refined=work.run(3)), RATE)
        y, position = codec.latent(section, *whole.size)
        losses.append(work.loss(y, position, len(section) / len(plain)))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert max(losses) < 1 + PRICE


def test_unfolding_finds_what_a_decoder_does(small: Image.Image) -> None:
    codec = load_codec()
    work = codec.refinement(codec.analyse(np.asarray(small)), RATE)
    y, bits, _ = unfold(codec.twin, work.residuals, work.z, work.position)
    assert float((y - work.y).abs().max()) < 0.05
    assert torch.equal(residuals_of(codec.twin, y, work.z, work.position), work.residuals)
    size = len(codec.section(codec.analyse(np.asarray(small)), RATE))
    assert float(bits.sum()) / 8 == pytest.approx(size, rel=0.15)


def test_large_pictures_get_fewer_passes_and_huge_ones_none() -> None:
    assert [passes_of(effort, 768 * 512) for effort in (0, 1, 2)] == list(search.PASSES)
    assert [passes_of(effort, 4_000_000) for effort in (0, 1, 2)] == [0, 2, 2]
    assert [passes_of(effort, 12_000_000) for effort in (0, 1, 2)] == [0, 0, 0]
    assert PASSES[1] * 2 <= PASSES[2]


# --- how it is asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", [-1, 3, 1.5, True, "1", None])
def test_other_efforts_are_usage_errors(small: Image.Image, effort: Any) -> None:
    with pytest.raises(UsageError, match="effort must be a whole number from 0 to 2"):
        picogram.encode(small, effort=effort)


@pytest.mark.parametrize("elsewhere", [[], ["--server", "http://127.0.0.1:9"]])
def test_the_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, elsewhere: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert main(["encode", str(tmp_path / "a.png"), "--effort", "3", *elsewhere]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.endswith(" [usage]\n")
    assert told.count("\n") == 1
    assert "effort" in told
    assert "2" in told


def test_the_command_line_takes_it(tmp_path: Path, small: Image.Image) -> None:
    source = tmp_path / "a.png"
    small.save(source)
    assert main(["encode", str(source), "--bytes", str(BUDGET), "--effort", "1"]) == 0
    assert source.with_suffix(".pico").read_bytes() == picogram.encode(small, bytes=BUDGET, effort=1)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        yield client


def test_a_server_takes_it_from_the_query_or_a_form(client: TestClient) -> None:
    asked = client.post("/v1/encode?effort=1", content=image())
    assert latent(asked)["options"]["effort"] == 1
    formed = client.post("/v1/encode", data={"effort": "2"}, files={"image": ("name", image())})
    assert latent(formed)["options"]["effort"] == 2
    assert latent(client.post("/v1/encode", content=image()))["options"]["effort"] == 0
    later = client.post("/v1/encode?effort=1", content=image(), headers={"Prefer": "respond-async"})
    assert later.status_code == 202
    parameters = {
        p["name"]: p for p in client.get("/openapi.json").json()["paths"]["/v1/encode"]["post"]["parameters"]
    }
    assert parameters["effort"]["schema"]["maximum"] == 2


@pytest.mark.parametrize("effort", ["3", "-1", "much", "1.5", ""])
def test_a_server_refuses_other_efforts(client: TestClient, effort: str) -> None:
    check_problem(client.post(f"/v1/encode?effort={effort}", content=image()), 422, "usage")


async def test_a_job_with_effort_weighs_more_and_may_take_longer() -> None:
    given: dict[str, Any] = {"profile": "base", "caption": None, "focus": None}
    orders = [await order_for_image("encode", image(), **given, effort=effort) for effort in (0, 1, 2)]
    assert orders[0].cost * 16 == orders[1].cost
    assert orders[1].cost < orders[2].cost
    assert [order.patience for order in orders] == [1, 2, 4]
    assert (await order_for_image("describe", image())).patience == 1


def test_the_encoder_worker_makes_what_the_library_makes(small: Image.Image) -> None:
    jobs = [Job("encode", png(small), ("encoder",), {"bytes": BUDGET, "effort": effort}) for effort in (1, 7)]
    good, bad = encoder.handler(jobs)
    assert isinstance(good, Result)
    assert good.payload == picogram.encode(small, bytes=BUDGET, effort=1)
    assert isinstance(bad, UsageError)


def test_clients_send_it_and_say_nothing_of_none(server: FakeServer) -> None:
    server.replies = [encoded(), encoded()]
    server.run(lambda c: c.encode(b"photo", effort=2))
    server.run(lambda c: c.encode(b"photo", effort=0))
    assert [dict(request.url.params) for request in server.requests] == [{"effort": "2"}, {}]
    with pytest.raises(UsageError, match="effort"):
        server.run(lambda c: c.encode(b"photo", effort=3))
    assert len(server.requests) == 2


def test_the_command_line_asks_a_server_for_it(tmp_path: Path, small: Image.Image) -> None:
    source, workers = tmp_path / "a.png", Workers()
    small.save(source)
    with listening(workers.backend) as url:
        assert main(["encode", str(source), "--effort", "1", "--server", url]) == 0
    assert [options["effort"] for options in workers.options] == [1]


def test_a_job_that_nobody_wants_ends_at_the_next_pass(small: Image.Image) -> None:
    """Else a canceled search would keep its worker for minutes."""
    body, seen = io.BytesIO(), list[float]()
    small.save(body, "PNG")
    job = Job("encode", body.getvalue(), ("encoder",), {"bytes": BUDGET, "effort": 2})

    def listen(name: str, facts: Mapping[str, Any]) -> None:
        seen.append(facts["fraction"])
        if len(seen) == 2:
            job.control.cancel()

    job.control.listen(listen)
    (outcome,) = encoder.handler([job])
    assert isinstance(outcome, JobCanceled)
    assert seen == [0.0, seen[1]]
    assert 0 < seen[1] < 1
