# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From files to pictures with the shipped diffusion model: plans as data, options, previews, tiles and bad wishes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import resized
from PIL import Image
from skimage import data
from small_diffusion import psnr
from torch import Tensor

import picogram
from picogram.bitstream import Profile, parse
from picogram.diffusion.denoiser import Restoration
from picogram.diffusion.embedded import EmbeddedDenoiser, load_denoiser
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Stage
from picogram.errors import JobCanceled, ModelDamaged, UsageError
from picogram.models import DEFAULT_DIFFUSION
from picogram.pipeline.draw import LARGEST, base_picture, draw, plan
from picogram.processor import Placement
from picogram.profiles import base, misc, sedic, stc
from picogram.profiles.registry import PROFILES
from picogram.profiles.spec import DrawingPlan, ProfileSpec, StagePlan
from picogram.request import DecodeOptions
from picogram.results import Decoded, Drawing
from picogram.semantics.description import Description, Region


@pytest.fixture(scope="module")
def file() -> bytes:
    return picogram.encode(resized(data.chelsea(), 256, 192), bpp=0.05)


def region(name: str, side: int = 8) -> Region:
    mask = np.zeros((side, side), np.bool_)
    mask[2:6, 2:6] = True
    return Region(name, "small", mask)


WORDS = Description("A dog on a beach.", (region("dog"), region("ball")))


def test_every_profile_has_a_plan_for_every_kind_of_model() -> None:
    assert {spec.code for spec in PROFILES.values()} == set(Profile)
    for spec in PROFILES.values():
        assert set(spec.plans) == {"embedded", "one-step", "many-step"}


def test_stages_follow_the_file() -> None:
    first, second, last = plan(sedic.PROFILE, "many-step", 0.2, WORDS, DecodeOptions())
    assert (first.prompt, second.prompt, last.prompt) == ("dog, small", "ball, small", "A dog on a beach.")
    assert first.mask is not None
    assert last.mask is None
    assert first.attention is not None
    assert last.attention is None
    assert first.control == "previous"
    assert len({stage.seed for stage in (first, second, last)}) == 3


def test_callers_change_steps_and_guidance() -> None:
    *objects, last = plan(misc.PROFILE, "many-step", 0.2, WORDS, DecodeOptions(steps=7, guidance=2.5, seed=9))
    assert last.steps == 7
    assert {stage.guidance for stage in (*objects, last)} == {2.5}
    assert objects[0].seed == 9


@pytest.mark.parametrize("spec", PROFILES.values())
def test_no_steps_leave_the_base_picture(spec: ProfileSpec) -> None:
    assert plan(spec, "embedded", 0.2, WORDS, DecodeOptions(steps=0)) == ()


@pytest.mark.parametrize("spec", PROFILES.values())
def test_the_embedded_model_draws_with_one_step_at_any_rate(spec: ProfileSpec) -> None:
    for rate in (0.0, 1.0):
        assert [stage.steps for stage in plan(spec, "embedded", rate, None, DecodeOptions())] == [1]


def test_guidance_of_a_one_step_model_is_refused() -> None:
    with pytest.raises(UsageError, match="guidance"):
        plan(stc.PROFILE, "one-step", 0.2, WORDS, DecodeOptions(guidance=3))
    assert len(plan(stc.PROFILE, "one-step", 0.2, WORDS, DecodeOptions(guidance=1))) == 1


def test_files_finer_than_the_plan_asks_stay_as_they_are() -> None:
    coarse = replace(base.PROFILE, plans={"embedded": DrawingPlan(StagePlan(1), finest=0.3)})
    assert plan(coarse, "embedded", 0.31, None, DecodeOptions()) == ()
    assert len(plan(coarse, "embedded", 0.29, None, DecodeOptions())) == 1
    assert len(plan(coarse, "embedded", 0.31, None, DecodeOptions(steps=2))) == 1


def test_large_pictures_are_drawn_when_asked_for() -> None:
    large = LARGEST["embedded"] + 1
    assert plan(base.PROFILE, "embedded", 0.2, None, DecodeOptions(), large) == ()
    assert len(plan(base.PROFILE, "embedded", 0.2, None, DecodeOptions(), large - 1)) == 1
    assert len(plan(base.PROFILE, "embedded", 0.2, None, DecodeOptions(steps=1), large)) == 1
    assert len(plan(base.PROFILE, "many-step", 0.2, None, DecodeOptions(), large)) == 1


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"steps": 51}, {"steps": True}, {"guidance": 21}, {"seed": 2**32}, {"seed": -1}]
)
def test_wishes_out_of_range_are_refused(file: bytes, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        picogram.decode(file, **wrong)  # type: ignore[arg-type]


def test_a_seed_decides_the_picture(file: bytes) -> None:
    one, again, other = (np.asarray(picogram.decode(file, steps=1, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_restoring_stays_close_to_the_base_picture(file: bytes) -> None:
    base, restored = (np.asarray(picogram.decode(file, steps=s), np.float32) / 255 for s in (0, 1))
    distance = -10 * np.log10(np.square(base - restored).mean())
    assert 22 < distance < 50


def test_single_and_half_precision_agree(file: bytes) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser = EmbeddedDenoiser(load_denoiser().net, dtype=dtype)
        found.append(restored(denoiser, file))
    assert psnr(*found) > 40


def test_windows_look_as_one(file: bytes) -> None:
    small = EmbeddedDenoiser(load_denoiser().net)
    small.tile = 128
    assert psnr(restored(small, file), restored(load_denoiser(), file)) > 35


def restored(denoiser: EmbeddedDenoiser, file: bytes) -> Tensor:
    (found,) = restore(denoiser, [Restoration(base_picture(parse(file)), [Stage(seed=4)])])
    assert isinstance(found, Tensor)
    return found


class Looking:
    """Notes what it sees; gives up after ``patience`` steps."""

    def __init__(self, patience: int = 100) -> None:
        self.seen: list[object] = []
        self.patience = patience

    def preview(self, picture: Image.Image) -> None:
        self.seen.append(picture.size)

    def progress(self, fraction: float) -> None:
        self.seen.append(fraction)
        if len(self.seen) > self.patience:
            raise JobCanceled("enough")


def test_the_base_picture_is_shown_before_any_step(file: bytes) -> None:
    watch = Looking()
    (decoded,) = draw([parse(file)], [None], [DecodeOptions(steps=2, seed=5)], [watch])
    assert isinstance(decoded, Decoded)
    assert decoded.drawing == Drawing(stages=1, steps=2, guidance=1.0, seed=5, model="embedded")
    assert decoded.picture.tobytes() == picogram.decode(file, steps=2, seed=5).tobytes()
    assert watch.seen == [(256, 192), 0.5, 1.0]


def test_giving_one_picture_up_leaves_the_others(file: bytes) -> None:
    watches = [Looking(), Looking(patience=1)]
    kept, dropped = draw([parse(file)] * 2, [None] * 2, [DecodeOptions(steps=3)] * 2, watches)
    assert isinstance(kept, Decoded)
    assert isinstance(dropped, JobCanceled)
    assert kept.picture.tobytes() == picogram.decode(file, steps=3).tobytes()


def test_objects_and_an_empty_caption_and_no_objects_are_drawn(file: bytes) -> None:
    from picogram.bitstream import Header, Picogram

    source = parse(file)
    header = Header(Profile.SEDIC, source.header.width, source.header.height, source.header.model)
    file_of_sedic = Picogram(header, source.latent)
    for words in (WORDS, Description(""), Description("", (region("dog"),)), None):
        (decoded,) = draw([file_of_sedic], [words], [DecodeOptions(steps=1)])
        assert isinstance(decoded, Decoded)
        assert decoded.description == words
        assert decoded.drawing.stages == (len(words.objects) if words else 0) + 1


def test_a_picture_that_nothing_is_imagined_in_says_so(file: bytes) -> None:
    (decoded,) = draw([parse(file)], [None], [DecodeOptions(steps=0, seed=3)], model="some-model")
    assert isinstance(decoded, Decoded)
    assert decoded.drawing == Drawing(stages=0, steps=0, guidance=None, seed=3, model="some-model")
    assert decoded.picture.tobytes() == picogram.decode(file, steps=0).tobytes()


def test_a_damaged_model_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from picogram.diffusion import embedded
    from picogram.models import shipped_manifest

    manifest = shipped_manifest("diffusion-2")
    monkeypatch.setattr(embedded, "shipped_manifest", lambda name: manifest | {"sha256": "0" * 64})
    with pytest.raises(ModelDamaged):
        embedded._loaded.__wrapped__(DEFAULT_DIFFUSION, Placement.of())
