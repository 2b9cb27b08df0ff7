# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Stages over tiny untrained models of the real classes: what must hold whatever the weights are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from picogram.diffusion.attention import Energy, bias, descend
from picogram.diffusion.denoiser import AttentionGuide, BasePicture, Batch, Restoration, Window
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Attention, AttentionMode, Stage
from picogram.errors import JobCanceled
from picogram.pipeline.draw import plan
from picogram.profiles.registry import PROFILES
from picogram.request import DecodeOptions
from picogram.semantics.description import Description, Region
from picogram_decoder.hub.blank import SCHEDULER, blank_parts
from picogram_decoder.hub.guidance import guided_layers
from picogram_decoder.hub.hub_denoiser import HubDenoiser, HubProcess
from picogram_decoder.hub.hub_models import MODELS
from picogram_decoder.hub.parts import fresh_scheduler
from picogram_decoder.hub.prompts import HubTexts

FEW = Stage(prompt="a red cat", steps=2, start=0.5, seed=7)
MASK = np.zeros((4, 4), np.bool_)
MASK[:, :2] = True


@pytest.fixture(scope="module", params=MODELS)
def denoiser(request: pytest.FixtureRequest) -> HubDenoiser:
    return tiny(request.param)


@pytest.fixture(scope="module")
def tile() -> HubDenoiser:
    return tiny("sd15-tile")


def tiny(name: str, prediction: str = "epsilon") -> HubDenoiser:
    """Minds words and control picture more than untrained networks do."""
    parts = blank_parts(MODELS[name], tiny=True, prediction=prediction)
    for module in parts.unet.modules():
        if hasattr(module, "to_k"):
            module.to_q.weight.mul_(4)
            module.to_k.weight.mul_(4)
            module.to_v.weight.mul_(4)
    if parts.control is not None:
        for layer in parts.control.controlnet_cond_embedding.modules():
            if hasattr(layer, "kernel_size"):
                layer.weight.mul_(2)
    return HubDenoiser(MODELS[name], parts)


def base(seed: int = 0, height: int = 64, width: int = 128) -> BasePicture:
    generator = torch.Generator().manual_seed(seed)
    return BasePicture(torch.rand(3, height, width, generator=generator), torch.zeros(1, 1, 1), 0.5)


def draw(denoiser: HubDenoiser, *stages: Stage, picture: BasePicture | None = None) -> Tensor:
    (outcome,) = restore(denoiser, [Restoration(picture or base(), stages)])
    assert isinstance(outcome, Tensor)
    return outcome


def begin(denoiser: HubDenoiser, stage: Stage, count: int = 1) -> HubProcess:
    pictures = torch.stack([base(n).pixels for n in range(count)])
    return denoiser.begin(Batch([base(n) for n in range(count)], pictures, pictures, [stage] * count))


def psnr(one: Tensor, other: Tensor) -> float:
    return -10 * math.log10(max(float((one - other).square().mean()), 1e-12))


@pytest.mark.parametrize(
    "stage",
    [
        FEW,
        replace(FEW, start=1.0),
        replace(FEW, steps=1),
        replace(FEW, guidance=4.0, negative="blur"),
        replace(FEW, mask=MASK),
        replace(FEW, mask=MASK, attention=Attention("bias")),
        replace(FEW, mask=MASK, attention=Attention("gradient", iterations=2), guidance=3.0),
    ],
    ids=["part", "whole", "one step", "guidance", "mask", "bias", "gradient"],
)
def test_every_stage_runs_on_every_model(denoiser: HubDenoiser, stage: Stage) -> None:
    picture = draw(denoiser, stage, replace(stage, control="previous"), picture=base(1, 70, 90))
    assert picture.shape == (3, 70, 90)
    assert picture.isfinite().all()
    assert 0 <= picture.min() <= picture.max() <= 1
    assert psnr(picture, base(1, 70, 90).pixels) < 40


def test_a_seed_is_the_same_picture_alone_and_among_others(denoiser: HubDenoiser) -> None:
    stages = [replace(FEW, seed=seed, guidance=3.0) for seed in (7, 8, 9)]
    items = [Restoration(base(n), [stage]) for n, stage in enumerate(stages)]
    together = restore(denoiser, items)
    for item, among in zip(items, together, strict=True):
        (alone,) = restore(denoiser, [item])
        assert isinstance(alone, Tensor)
        assert isinstance(among, Tensor)
        assert psnr(alone, among) > 40
    other = draw(denoiser, stages[1])
    assert isinstance(together[0], Tensor)
    assert psnr(together[0], other) < 40


def test_words_and_negative_words_change_the_picture(tile: HubDenoiser) -> None:
    stage = replace(FEW, guidance=6.0, start=1.0, steps=4)
    first = draw(tile, replace(stage, negative="blurred, flat"))
    assert torch.equal(first, draw(tile, replace(stage, negative="blurred, flat")))
    assert psnr(first, draw(tile, replace(stage, negative="sharp"))) < 60
    assert psnr(first, draw(tile, replace(stage, prompt="x y z", negative="blurred, flat"))) < 60


def test_the_control_picture_counts(tile: HubDenoiser) -> None:
    stage = replace(FEW, start=1.0)
    pictures = [base(n).pixels[None] for n in range(2)]
    texts = tile.read(["a cat"])
    window = Window(0, 0, 8, 16)
    outputs = []
    for control in pictures:
        process = tile.begin(Batch([base()], control, pictures[0], [stage]))
        outputs.append(process.predict(process.start(), 0, texts, window))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_what_lies_outside_the_mask_is_kept(denoiser: HubDenoiser) -> None:
    picture = draw(denoiser, replace(FEW, mask=MASK, start=1.0))
    assert torch.equal(picture[..., 80:], base().pixels[..., 80:])
    assert psnr(picture[..., :48], base().pixels[..., :48]) < 40


def test_large_pictures_are_drawn_in_windows(tile: HubDenoiser) -> None:
    seen = []
    small = tiny("sd15-tile")
    small.tile = 64
    process_predict = HubProcess.predict

    def counted(
        self: HubProcess, x: Tensor, index: int, texts: HubTexts, window: Window, guide: None
    ) -> Tensor:
        seen.append((window.top, window.left, *x.shape[2:]))
        return process_predict(self, x, index, texts, window, guide)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HubProcess, "predict", counted)
        picture = draw(small, replace(FEW, steps=1))
    assert seen == [(0, 0, 8, 8), (0, 8, 8, 8)]
    assert psnr(picture, draw(tile, replace(FEW, steps=1))) < 60


@pytest.mark.parametrize("name", ["sd15-tile", "sdxl-turbo"])
def test_a_guide_that_changes_nothing_changes_no_picture(name: str) -> None:
    denoiser = tiny(name)
    process, texts = begin(denoiser, FEW), denoiser.read(["a cat"])
    x, window = process.start(), Window(0, 0, 8, 16)
    seen: list[tuple[int, ...]] = []

    def look(logits: Tensor) -> Tensor:
        seen.append(tuple(logits.shape))
        return logits

    before = [layer.processor for layer in denoiser.layers]
    plain = process.predict(x, 0, texts, window)
    torch.testing.assert_close(process.predict(x, 0, texts, window, look), plain, rtol=1e-4, atol=1e-5)
    assert len(seen) == len(denoiser.layers) > 1
    assert all(shape[0] == 1 and shape[4] == 77 and shape[3] == 2 * shape[2] for shape in seen)
    assert [layer.processor for layer in denoiser.layers] == before


def test_processors_are_restored_after_a_failure(tile: HubDenoiser) -> None:
    def fail(logits: Tensor) -> Tensor:
        raise RuntimeError("no")

    before = [layer.processor for layer in tile.layers]
    process = begin(tile, FEW)
    with pytest.raises(RuntimeError, match="no"):
        process.predict(process.start(), 0, tile.read(["a"]), Window(0, 0, 8, 16), fail)
    assert [layer.processor for layer in tile.layers] == before


def test_guided_layers_are_the_middle_and_the_first_level_up(tile: HubDenoiser) -> None:
    names = {id(module): name for name, module in tile.parts.unet.named_modules()}
    found = {names[id(layer)].split(".attentions")[0] for layer in guided_layers(tile.parts.unet)}
    assert found == {"mid_block", "up_blocks.1"}
    assert all(names[id(layer)].endswith("attn2") for layer in tile.layers)


def energy(denoiser: HubDenoiser, x: Tensor, mask: Tensor, texts: HubTexts, process: HubProcess) -> Tensor:
    seen = Energy(mask, texts.words)
    process.predict(x, 0, texts, Window(0, 0, 8, 16), seen)
    return seen.values()


@pytest.mark.parametrize("name", ["sd15-tile", "sdxl-tile"])
def test_gradient_guidance_moves_attention_into_the_mask(name: str) -> None:
    denoiser = tiny(name)
    process, texts = begin(denoiser, FEW, 2), denoiser.read(["a cat", "red"])
    mask = torch.zeros(2, 1, 8, 16)
    mask[..., :6] = 1
    x = process.start()
    before = energy(denoiser, x, mask, texts, process)
    moved = descend(
        x,
        lambda moving, guide: process.predict(moving, 0, texts, Window(0, 0, 8, 16), guide),
        lambda: Energy(mask, texts.words),
        process.deviation(0),
        scale=0.1,  # as far as the slope of untrained attention reaches
        threshold=0.0,
        iterations=3,
    )
    assert not moved.requires_grad
    assert (energy(denoiser, moved, mask, texts, process) < before).all()


def test_bias_moves_attention_into_the_mask(tile: HubDenoiser) -> None:
    process, texts = begin(tile, FEW), tile.read(["a cat"])
    mask = torch.zeros(1, 1, 8, 16)
    mask[..., :8] = 1
    shares: list[list[Tensor]] = []
    for strength in (0.0, 2.0):
        push, seen = bias(mask, texts.words, strength), Energy(mask, texts.words)

        def both(logits: Tensor, push: AttentionGuide = push, seen: AttentionGuide = seen) -> Tensor:
            return seen(push(logits))

        process.predict(process.start(), 0, texts, Window(0, 0, 8, 16), both)
        shares.append(list(seen.values()))
    assert shares[1][0] < 0.5 * shares[0][0]


def test_attention_guidance_changes_the_picture(tile: HubDenoiser) -> None:
    stage = replace(FEW, mask=MASK, start=1.0)
    plain = draw(tile, stage)
    for mode in ("bias", "gradient"):
        attention = Attention(mode, strength=8, scale=1000, threshold=0)
        assert not torch.equal(plain, draw(tile, replace(stage, attention=attention)))


def test_a_stage_that_does_not_say_how_is_guided_as_the_model_was_told(tile: HubDenoiser) -> None:
    stage = replace(FEW, mask=MASK, start=1.0)
    for mode in ("bias", "gradient"):
        told = HubDenoiser(tile.model, tile.parts, mode)
        said, left = (
            draw(told, replace(stage, attention=Attention(how, strength=8, scale=1000, threshold=0)))
            for how in (mode, None)
        )
        assert torch.equal(said, left)
        assert not torch.equal(left, draw(told, stage))


def test_sedic_is_guided_by_gradient_where_that_is_set(
    tile: HubDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []

    def noted(x: Tensor, *_: object, **__: object) -> Tensor:
        moved.append(x.shape)
        return x

    monkeypatch.setattr("picogram.diffusion.sampler.descend", noted)
    words = Description("a beach", (Region("cat", "red", np.kron(MASK, np.ones((2, 2), np.bool_))),))
    cases: tuple[tuple[AttentionMode, str, int], ...] = (
        ("bias", "sedic", 0),
        ("gradient", "misc", 0),
        ("gradient", "sedic", 5),
    )
    for mode, profile, count in cases:
        moved.clear()
        stages = plan(PROFILES[profile], tile.kind, 0.3, words, DecodeOptions(steps=1))
        draw(HubDenoiser(tile.model, tile.parts, mode), *stages)
        assert len(moved) == count


def test_noise_levels_follow_the_start(tile: HubDenoiser) -> None:
    levels = {}
    for start in (0.25, 0.5, 1.0):
        process = begin(tile, replace(FEW, steps=4, start=start))
        levels[start] = [process.deviation(index) for index in range(5)]
        assert process.count == 4
        assert levels[start] == sorted(levels[start], reverse=True)
        assert levels[start][-1] == 0
    assert levels[1.0][0] == pytest.approx(14.6, abs=0.1)
    assert levels[0.25][0] < levels[0.5][0] < levels[1.0][0]


@pytest.mark.parametrize("name", ["sd21", "sd-turbo", "sdxl-turbo"])
def test_without_a_controlnet_the_base_picture_is_never_forgotten(name: str) -> None:
    denoiser = tiny(name)
    process = begin(denoiser, replace(FEW, steps=1, start=1.0))
    assert process.deviation(0) < 2
    assert torch.equal(process.start(), process.noisy(0))


@pytest.mark.parametrize("steps", [1, 2, 61, 100])
@pytest.mark.parametrize("start", [0.001, 0.3, 0.6, 1.0])
def test_any_number_of_steps_ends_without_noise(tile: HubDenoiser, steps: int, start: float) -> None:
    process = begin(tile, replace(FEW, steps=steps, start=start))
    assert process.deviation(steps) == 0
    assert process.deviation(steps - 1) > 0
    assert float(process._times[-1]) >= 0
    assert len(process._times) == steps


def test_kept_parts_are_as_noisy_as_the_scheduler_would_make_them(tile: HubDenoiser) -> None:
    process = begin(tile, replace(FEW, steps=4))
    scheduler = process._scheduler
    for index in range(4):
        expected = scheduler.add_noise(process._latent, process._noise, process._times[index : index + 1])
        torch.testing.assert_close(process.noisy(index), expected)
        process.step(torch.zeros_like(expected), expected, index)
    assert torch.equal(process.noisy(4), process._latent)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["sd15-tile", "sdxl-turbo"])
def test_a_perfect_network_gives_the_previous_picture_back(name: str, prediction: str) -> None:
    denoiser = tiny(name, prediction)
    stage = replace(FEW, steps=5, start=0.7)
    process = begin(denoiser, stage, 2)
    x = process.start()
    for index in range(process.count):
        sigma = process.deviation(index)
        noise = (x - process._latent) / sigma
        scaled = 1 / math.sqrt(sigma**2 + 1)
        velocity = scaled * noise - scaled * sigma * process._latent
        process.predict(x, index, denoiser.read(["", ""]), Window(0, 0, 8, 16))
        x = process.step(noise if prediction == "epsilon" else velocity, x, index)
    torch.testing.assert_close(x, process._latent, rtol=1e-3, atol=1e-4)


def test_schedulers_share_nothing() -> None:
    fresh = fresh_scheduler(
        MODELS["sdxl-turbo"], {**SCHEDULER, "steps_offset": 1, "_class_name": "PNDMScheduler"}
    )
    one, other = fresh(), fresh()
    one.set_timesteps(3)
    assert len(other.timesteps) == 1000
    assert one.config.timestep_spacing == "trailing"


def test_canceling_one_picture_leaves_the_others(tile: HubDenoiser) -> None:
    stage = replace(FEW, steps=4)
    steps: list[tuple[int, float]] = []

    def watch(index: int, fraction: float) -> None:
        steps.append((index, fraction))
        if index == 1 and fraction >= 0.5:
            raise JobCanceled("enough")

    one, other = restore(tile, [Restoration(base(0), [stage]), Restoration(base(1), [stage])], watch)
    assert isinstance(one, Tensor)
    assert isinstance(other, JobCanceled)
    assert steps.count((1, 0.5)) == 1
    assert not any(index == 1 and fraction > 0.5 for index, fraction in steps)
    assert psnr(one, draw(tile, stage)) > 40


def test_canceling_the_last_picture_stops_the_network(tile: HubDenoiser) -> None:
    calls: list[int] = []
    hook = tile.parts.unet.register_forward_hook(lambda *_: calls.append(1))

    def watch(index: int, fraction: float) -> None:
        raise JobCanceled("enough")

    try:
        (outcome,) = restore(tile, [Restoration(base(), [replace(FEW, steps=4)])], watch)
    finally:
        hook.remove()
    assert isinstance(outcome, JobCanceled)
    assert len(calls) == 1


def test_the_announced_size_is_large_and_of_the_same_shape() -> None:
    process = begin(tiny("sdxl-tile"), FEW)
    assert process._sizes(2, Window(0, 0, 8, 16)).tolist() == [[1024, 2048, 0, 0, 1024, 2048]] * 2
    assert process._sizes(1, Window(0, 0, 128, 160)).tolist() == [[1024, 1280, 0, 0, 1024, 1280]]
