# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Stages over the sampler, on a small random network: what seeds, words, masks, guidance, sizes and stops do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_diffusion import SeeingNet, base, drawn, psnr, small_denoiser, small_net, small_table
from torch import Tensor

from picogram.diffusion import sampler
from picogram.diffusion.attention import Energy, bias
from picogram.diffusion.bridge import NOISE
from picogram.diffusion.colour import fix_colour, low
from picogram.diffusion.denoiser import Batch, Restoration, Window
from picogram.diffusion.embedded import EmbeddedDenoiser
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import MAX_SEED, MAX_STEPS, Attention, Stage
from picogram.diffusion.windows import around, blend, cover
from picogram.errors import JobCanceled, UsageError


@pytest.fixture(scope="module")
def denoiser() -> EmbeddedDenoiser:
    return small_denoiser(small_net(), small_table())


@pytest.fixture(scope="module")
def seeing() -> EmbeddedDenoiser:
    return small_denoiser(small_net(SeeingNet), small_table())


def left_half() -> npt.NDArray[np.bool_]:
    mask = np.zeros((8, 8), np.bool_)
    mask[:, :4] = True
    return mask


def test_without_stages_the_base_picture_comes_back(denoiser: EmbeddedDenoiser) -> None:
    assert torch.equal(drawn(denoiser), base().pixels)


def test_a_seed_gives_the_same_picture_alone_and_in_a_batch(denoiser: EmbeddedDenoiser) -> None:
    items = [Restoration(base(n), [Stage(steps=3, seed=7 + n)]) for n in range(3)]
    together = restore(denoiser, items)
    alone, other = (drawn(denoiser, Stage(steps=3, seed=s), of=base(1)) for s in (8, 9))
    assert isinstance(together[1], Tensor)
    assert psnr(together[1], alone) > 60
    assert psnr(alone, other) < 60


def test_pictures_of_different_size_and_stages_share_a_call(denoiser: EmbeddedDenoiser) -> None:
    items = [
        Restoration(base(0), [Stage()]),
        Restoration(base(1, 33, 70), [Stage(steps=2)]),
        Restoration(base(2), []),
        Restoration(base(3), [Stage("a", mask=left_half()), Stage("b")]),
        Restoration(base(4), [Stage(seed=1)]),
    ]
    together = restore(denoiser, items)
    for item, found in zip(items, together, strict=True):
        assert isinstance(found, Tensor)
        assert psnr(found, drawn(denoiser, *item.stages, of=item.base)) > 60


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 70), (95, 16)])
def test_any_size_comes_back_as_it_was(denoiser: EmbeddedDenoiser, height: int, width: int) -> None:
    out = drawn(denoiser, Stage(steps=2), of=base(0, height, width))
    assert out.shape == (3, height, width)
    assert bool(torch.isfinite(out).all())
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_words_change_the_picture(denoiser: EmbeddedDenoiser) -> None:
    one, two, none = (drawn(denoiser, Stage(prompt)) for prompt in ("red", "blue", ""))
    assert not torch.allclose(one, two)
    assert not torch.allclose(one, none)


@pytest.mark.parametrize(
    "hostile", ["x" * 100_000, "\x00\x1b[31m\u202e", "(((dog:1.5))) <lora:x:9> --no", "\n" * 50]
)
def test_hostile_words_are_words_like_any_other(denoiser: EmbeddedDenoiser, hostile: str) -> None:
    assert bool(torch.isfinite(drawn(denoiser, Stage(hostile))).all())


def test_guidance_moves_away_from_the_negative_words(denoiser: EmbeddedDenoiser) -> None:
    plain = drawn(denoiser, Stage("red"))
    guided = drawn(denoiser, Stage("red", "blue", guidance=3))
    another = drawn(denoiser, Stage("red", "green", guidance=3))
    assert not torch.allclose(plain, guided)
    assert not torch.allclose(guided, another)


def test_guidance_of_one_is_the_words_alone_whatever_the_negative_ones(denoiser: EmbeddedDenoiser) -> None:
    assert torch.equal(drawn(denoiser, Stage("red", "blue")), drawn(denoiser, Stage("red")))


def test_a_mask_keeps_what_lies_outside(denoiser: EmbeddedDenoiser) -> None:
    before = base(0, 128, 256)
    out = drawn(denoiser, Stage("red", mask=left_half(), steps=3), of=before)
    right = slice(128 + sampler.EDGE, None)
    assert torch.equal(out[:, :, right], before.pixels[:, :, right])
    assert not torch.allclose(out[:, :, :64], before.pixels[:, :, :64], atol=1e-3)


def test_a_masks_edge_is_soft(denoiser: EmbeddedDenoiser) -> None:
    mask = sampler._masks([Stage(mask=left_half())], torch.zeros(1, 3, 128, 256))
    assert mask is not None
    row = mask[0, 0, 64]
    fading = int(((row > 0) & (row < 1)).sum())
    assert 2 <= fading <= sampler.EDGE
    assert float(row.diff().abs().max()) < 0.5


def test_masks_of_odd_sizes_serve(denoiser: EmbeddedDenoiser) -> None:
    mask = np.zeros((3, 17), np.bool_)
    mask[1] = True
    assert drawn(denoiser, Stage(mask=mask)).shape == (3, 64, 96)


def test_an_empty_mask_changes_nothing_and_a_full_one_is_none(denoiser: EmbeddedDenoiser) -> None:
    empty = drawn(denoiser, Stage("red", mask=np.zeros((8, 8), np.bool_), steps=2))
    full = drawn(denoiser, Stage("red", mask=np.ones((8, 8), np.bool_), steps=2))
    assert torch.allclose(empty, base().pixels, atol=1e-5)
    assert torch.allclose(full, drawn(denoiser, Stage("red", steps=2)), atol=1e-5)


def test_a_low_start_stays_near_the_previous_picture(denoiser: EmbeddedDenoiser) -> None:
    stage = Stage(steps=1, start=1.0)
    process = denoiser.begin(Batch([base()], base().pixels[None], base().pixels[None], [stage]))
    near = denoiser.begin(Batch([base()], base().pixels[None], base().pixels[None], [Stage(start=0.1)]))
    assert psnr(near.start()[0], base().pixels) > psnr(process.start()[0], base().pixels) + 15
    assert near.deviation(0) == pytest.approx(0.1 * NOISE)


def test_control_may_be_the_previous_picture(denoiser: EmbeddedDenoiser) -> None:
    first = Stage("red", seed=1)
    again, on = (
        drawn(denoiser, first, Stage("blue", seed=2, control=control)) for control in ("base", "previous")
    )
    assert not torch.allclose(again, on)


def attention_inside(denoiser: EmbeddedDenoiser, *guides: Attention | None) -> list[float]:
    """Mean energy of a masked stage's words after guidance, at the first step."""
    found = []
    for guide in guides:
        stage = Stage("red", mask=left_half(), steps=2, attention=guide)
        process = denoiser.begin(Batch([base()], base().pixels[None], base().pixels[None], [stage]))
        mask = sampler._masks([stage], base().pixels[None])
        drawing = sampler._Drawing(denoiser, process, [stage], mask, (64, 96))
        x = process.start()
        if guide is not None and guide.mode == "gradient":
            x = drawing._descend(x, 0, guide)
        assert mask is not None
        texts = denoiser.read(["red"])
        energy = Energy(mask, texts.words)
        push = bias(mask, texts.words, guide.strength) if guide and guide.mode == "bias" else None
        process.predict(x, 0, texts, Window(0, 0, 64, 96), lambda v: energy(push(v) if push else v))  # noqa: B023
        found.append(float(energy.values()))
    return found


def test_both_ways_of_attention_guidance_bring_the_words_into_the_mask(seeing: EmbeddedDenoiser) -> None:
    gradient = Attention("gradient", threshold=0.0, scale=3000.0)
    plain, biased, moved = attention_inside(seeing, None, Attention("bias"), gradient)
    assert biased < plain - 0.05
    assert moved < plain - 1e-4


def test_attention_guidance_changes_the_picture_only_inside(seeing: EmbeddedDenoiser) -> None:
    plain, *guided = (
        drawn(seeing, Stage("red", mask=left_half(), steps=2, attention=attention), of=base(0, 128, 256))
        for attention in (None, Attention("bias"), Attention("gradient", threshold=0.0, scale=3000.0))
    )
    for each in guided:
        assert not torch.allclose(each, plain)
        assert torch.equal(each[:, :, 144:], plain[:, :, 144:])


def test_the_embedded_model_is_guided_by_bias_and_left_alone_by_gradients(denoiser: EmbeddedDenoiser) -> None:
    plain, biased, moved = (
        drawn(denoiser, Stage("red", mask=left_half(), steps=2, attention=attention))
        for attention in (None, Attention("bias"), Attention("gradient", threshold=0.0, scale=3000.0))
    )
    assert not torch.allclose(biased, plain)
    assert torch.equal(moved, plain)


def test_energy_below_the_threshold_is_left_alone(denoiser: EmbeddedDenoiser) -> None:
    stage = Stage("red", mask=left_half(), steps=2)
    satisfied = Stage("red", mask=left_half(), steps=2, attention=Attention("gradient", threshold=1.0))
    assert torch.equal(drawn(denoiser, stage), drawn(denoiser, satisfied))


def test_windows_cover_everything_and_weights_add_up() -> None:
    windows = cover(100, 260, 64, 4)
    seen = torch.zeros(100, 260)
    for w in windows:
        w.of(seen).add_(1)
        assert w.top % 4 == w.left % 4 == 0
    assert bool((seen >= 1).all())
    x = torch.rand(1, 2, 100, 260)
    assert torch.allclose(blend(x, windows, lambda w: w.of(x)), x, atol=1e-5)


def test_windows_around_a_mask_cover_it_and_its_surroundings_only() -> None:
    mask = torch.zeros(1, 1, 128, 256)
    mask[..., 40:60, 100:110] = 1
    seen = torch.zeros(128, 256)
    for w in around(mask, 16, 32, 16):
        w.of(seen).add_(1)
        assert w.top % 16 == w.left % 16 == 0
    assert bool((seen[24:76, 84:126] >= 1).all())
    assert float(seen[:16].sum() + seen[80:].sum() + seen[:, :80].sum() + seen[:, 128:].sum()) == 0
    assert around(torch.zeros(1, 1, 32, 32), 16, 32, 16) == []
    x = torch.rand(1, 3, 128, 256)
    assert torch.equal(blend(x, [], lambda w: w.of(x)), x)
    doubled = blend(x, around(mask, 16, 32, 16), lambda w: 2 * w.of(x))
    assert torch.allclose(doubled[..., 40:60, 100:110], 2 * x[..., 40:60, 100:110], atol=1e-4)
    assert torch.equal(doubled[:, :, :16], x[:, :, :16])


def test_an_object_is_drawn_as_in_the_whole_picture(denoiser: EmbeddedDenoiser) -> None:
    corner = np.zeros((8, 8), np.bool_)
    corner[1:3, 1:3] = True
    stage, of = Stage("red", mask=corner, steps=2), base(0, 512, 512)
    here = drawn(denoiser, stage, of=of)
    everywhere = small_denoiser(small_net(), small_table())
    everywhere.reach = None
    assert psnr(here, drawn(everywhere, stage, of=of)) > 45


def test_colours_come_from_the_base_picture_and_detail_stays() -> None:
    torch.manual_seed(5)
    original = torch.rand(1, 3, 64, 64) * 0.5 + 0.25
    shifted = original * 1.1 + 0.05
    fixed = fix_colour(shifted, original)
    assert torch.allclose(low(fixed).mean(), low(original).mean(), atol=2e-3)
    detail = fixed - low(fixed)
    wanted = shifted - low(shifted)
    assert psnr(detail, wanted) > 30


def test_progress_counts_steps_of_all_stages(denoiser: EmbeddedDenoiser) -> None:
    told: list[tuple[int, float]] = []
    items = [Restoration(base(), [Stage("a", steps=2), Stage("b", steps=2)])]
    restore(denoiser, items, lambda *t: told.append(t))
    assert told == [(0, 0.25), (0, 0.5), (0, 0.75), (0, 1.0)]


def test_a_picture_that_is_given_up_leaves_its_batch_alone(denoiser: EmbeddedDenoiser) -> None:
    def watch(index: int, fraction: float) -> None:
        if index == 1 and fraction >= 0.5:
            raise JobCanceled("stop")

    items = [Restoration(base(n), [Stage(steps=4, seed=n)]) for n in range(3)]
    found = restore(denoiser, items, watch)
    assert isinstance(found[1], JobCanceled)
    for index in (0, 2):
        picture = found[index]
        assert isinstance(picture, Tensor)
        assert psnr(picture, drawn(denoiser, *items[index].stages, of=items[index].base)) > 60


def test_nothing_is_drawn_after_the_last_one_gave_up(denoiser: EmbeddedDenoiser) -> None:
    steps = []

    def watch(index: int, fraction: float) -> None:
        steps.append(fraction)
        raise JobCanceled("stop")

    (found,) = restore(denoiser, [Restoration(base(), [Stage(steps=4), Stage(steps=4)])], watch)
    assert isinstance(found, JobCanceled)
    assert steps == [1 / 8]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": MAX_STEPS + 1},
        {"steps": 1.5},
        {"guidance": -1},
        {"guidance": float("nan")},
        {"start": 0.0},
        {"start": 1.01},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"mask": np.ones((8, 8))},
        {"mask": np.ones((0, 8), np.bool_)},
    ],
)
def test_stages_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Stage(**wrong)  # type: ignore[arg-type]


def test_steps_are_those_of_the_flow_matching_scheduler(denoiser: EmbeddedDenoiser) -> None:
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_flow_match_euler_discrete")
    scheduler = scheduling.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    batch = Batch([base()], base().pixels[None], base().pixels[None], [Stage(steps=4)])
    process, x = denoiser.begin(batch), torch.rand(1, 3, 64, 96)
    clean = torch.rand(1, 3, 64, 96)
    theirs = x
    for index, time in enumerate(scheduler.timesteps):
        velocity = (theirs - clean) / float(scheduler.sigmas[index])
        theirs = scheduler.step(velocity, time, theirs).prev_sample
        x = process.step(clean, x, index)
        assert torch.allclose(x, theirs, atol=1e-5)
