# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training with captions: every term of the joint loss pulls the right way; runs start unchanged, resume and export."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joint_parts
import numpy as np
import pytest
import torch
from photo_folders import caption_states, photo_folder
from pictures import synthetic
from safetensors.torch import load_file, save_file
from torch import Tensor

from picogram.latent.codec import PhotoCodec
from picogram.latent.guide import Guide
from picogram.latent.latent_codec import LatentCodec
from picogram.semantics.joint import JointHeads
from training.engine import TrainingEngine
from training.latent.export import export
from training.latent.task import made
from training.phases import Phase, read_phases
from training.photos import bank
from training.taco.data import Captioned, without_some
from training.taco.losses import contrast, drift
from training.taco.pack import HEIGHT, WIDTH, pack
from training.taco.task import TacoSettings, TacoTask, with_adapter

COUNT = 12
DIMENSIONS = 16


def unit(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


# the loss


def test_the_contrast_falls_as_a_picture_turns_to_its_caption() -> None:
    texts, others, images = (
        unit(4, DIMENSIONS, seed=1),
        unit(40, DIMENSIONS, seed=2),
        unit(4, DIMENSIONS, seed=3),
    )
    losses = []
    for share in (0.0, 0.5, 1.0):
        mixed = torch.nn.functional.normalize((1 - share) * images + share * texts, dim=-1)
        losses.append(contrast(mixed, texts, others, 14.0))
    assert (losses[0] > losses[1]).all()
    assert (losses[1] > losses[2]).all()
    assert losses[0].shape == (4,)


def test_the_contrast_of_one_picture_does_not_hang_on_anothers_caption_being_found() -> None:
    texts, others = unit(2, DIMENSIONS, seed=1), unit(40, DIMENSIONS, seed=2)
    lost = torch.stack([texts[0], unit(1, DIMENSIONS, seed=9)[0]])
    good, bad = contrast(lost, texts, others, 14.0)
    assert good < 0.5 < bad


def test_a_step_against_the_gradient_of_the_contrast_finds_the_caption() -> None:
    texts, others = unit(3, DIMENSIONS, seed=1), unit(40, DIMENSIONS, seed=2)
    images = unit(3, DIMENSIONS, seed=3).requires_grad_(True)
    before = (images * texts).sum(1)
    contrast(images, texts, others, 14.0).sum().backward()
    assert images.grad is not None
    after = torch.nn.functional.normalize(images - 0.1 * images.grad, dim=-1)
    assert ((after * texts).sum(1) > before).all()


def test_the_drift_is_each_samples_own_distance_and_has_a_slope_at_zero() -> None:
    images = unit(3, DIMENSIONS)
    decoded = images.clone()
    decoded[1] = -decoded[1]
    assert drift(images, decoded).tolist() == pytest.approx([1e-4, 2, 1e-4], abs=1e-3)
    decoded.requires_grad_(True)
    drift(images, decoded).sum().backward()
    assert decoded.grad is not None
    assert torch.isfinite(decoded.grad).all()


# data


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.tar"
    rows = []
    with tarfile.open(path, "w") as file:
        for i in range(COUNT):
            buffer = io.BytesIO()
            synthetic(i, 96, 96).save(buffer, "PNG")
            aspect = 0.7 if i == 3 else 1.4
            rows.append({"file": f"{i:02d}.png", "captions": ["one", "two words"], "true_aspect": aspect})
            members = {f"{i:02d}.png": buffer.getvalue()}
            if i == COUNT - 1:
                members["captions.jsonl"] = "\n".join(json.dumps(row) for row in rows).encode()
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def photos(tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(tar, out)
    return out


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_states(tmp_path_factory.mktemp("states"), COUNT, joint_parts.CONFIG.text_width)


@pytest.fixture(scope="module")
def heads() -> JointHeads:
    return joint_parts.heads().eval()


def captioned(photos: Path, states: Path, heads: JointHeads) -> Captioned:
    return Captioned(photos, states, heads, torch.device("cpu"), np.random.default_rng(1))


def test_whole_wide_photos_are_packed_and_the_last_tenth_is_kept_apart(photos: Path) -> None:
    about = json.loads((photos / "photos.json").read_text())
    assert (about["train"], about["val"]) == (9, 2)
    assert about["numbers"] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (photos / "photos.u8").stat().st_size == 11 * HEIGHT * WIDTH * 3


def test_photos_come_with_captions_of_their_own(photos: Path, states: Path, heads: JointHeads) -> None:
    data = captioned(photos, states, heads)
    batch = data.batch(64)
    assert batch.pixels.shape == (64, 3, HEIGHT, WIDTH)
    originals = data.pixels.permute(0, 3, 1, 2).float() / 255
    for pixels, values, mask in zip(batch.pixels, batch.guide.states, batch.guide.mask, strict=True):
        alike = [((o - pixels).abs().mean(), (o.flip(2) - pixels).abs().mean()) for o in originals]
        photo = int(data.numbers[int(torch.tensor(alike).amin(1).argmin())])
        captions = [data.guide(np.array([2 * photo + k])).states[0, 0] for k in (0, 1)]
        assert any(torch.equal(values[0], caption) for caption in captions)
        assert int(mask.sum()) in (2, 3)
    torch.testing.assert_close(batch.texts, data.vectors(batch.guide))
    assert data.bank.shape == (9, joint_parts.CONFIG.width)


def test_a_caption_that_is_dropped_is_dropped_whole(photos: Path, states: Path, heads: JointHeads) -> None:
    guide = captioned(photos, states, heads).batch(2).guide
    left = without_some(guide, torch.tensor([False, True]))
    assert not left.mask[0].any()
    assert torch.equal(left.mask[1], guide.mask[1])


# runs


SETTINGS = {
    "captioned": 1.0,
    "captioned_batch": 3,
    "withheld": 0.3,
    "contrast": 0.5,
    "drift": 0.5,
    "share": 1.0,
    "crop": 64,
    "loss": {"mse": 100, "lpips_alex": 0},
}


def phase(**settings: Any) -> Phase:
    return Phase(batch=2, steps=2, warmup=1, lr=1e-3, settings=SETTINGS | settings)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without an adapter."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("start") / "average.safetensors"
    save_file(LatentCodec().state_dict(), path)
    return path


MakeTask = Callable[..., TacoTask]


@pytest.fixture
def make(windows: Path, photos: Path, states: Path, start: Path) -> MakeTask:
    """A task with features of colours only."""

    def made_task(adapter: bool = True, source: Path = start) -> TacoTask:
        torch.manual_seed(1)
        pictures, heads = (
            bank(windows, torch.device("cpu"), 1),
            joint_parts.heads().eval().requires_grad_(False),
        )
        model = made({}, source, pictures)
        if adapter:
            model = with_adapter(model, heads, source)
        said = Captioned(photos, states, heads, torch.device("cpu"), pictures.rng)
        return TacoTask(model, pictures, said, joint_parts.Colours(), windows)

    return made_task


def test_a_run_starts_from_the_codec_that_it_is_given_unchanged(make: MakeTask, start: Path) -> None:
    task = make()
    given = LatentCodec()
    given.load_state_dict(load_file(start))
    x, rate, guide = torch.rand(1, 3, 64, 64), torch.tensor([0.4]), task.captioned.batch(1).guide
    assert torch.equal(task.model.analyse(x, rate, guide), given.analysis(x, rate))


def test_an_adapter_that_is_there_is_kept(make: MakeTask, tmp_path: Path) -> None:
    task = make()
    assert task.model.adapter is not None
    torch.nn.init.normal_(task.model.adapter.coarse.out.weight)
    state = {k: v.contiguous() for k, v in task.model.state_dict().items()}
    save_file(state, tmp_path / "listening.safetensors")
    again = make(source=tmp_path / "listening.safetensors")
    assert again.model.adapter is not None
    assert torch.equal(again.model.adapter.coarse.out.weight, task.model.adapter.coarse.out.weight)


def test_a_stopped_run_goes_on_as_it_would_have_and_its_export_listens(
    make: MakeTask, tmp_path: Path
) -> None:
    phases = [phase(captioned=0.5)]
    whole = TrainingEngine(make(), phases, tmp_path / "whole")
    whole.run()
    first = TrainingEngine(make(), [replace(phases[0], steps=1)], tmp_path / "run")
    first.run()
    second = TrainingEngine(make(), phases, tmp_path / "run")
    assert second.step == 1
    second.phase, second.phase_step = 0, 1  # it was stopped within the phase, not at its end
    second.run()
    now, expected = second.task.model.state_dict(), whole.task.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in now.items())
    task = second.task
    assert isinstance(task, TacoTask)
    assert task.model.adapter is not None
    torch.nn.init.normal_(task.model.adapter.coarse.out.weight)
    codec = PhotoCodec(export(task.model, task.photos, batches=1), model=0)
    picture, guide = np.asarray(synthetic(3, 96, 80)), task.captioned.batch(1).guide
    heard = codec.analyse(picture, Guide(guide.states, guide.mask))
    assert not torch.allclose(heard.features, codec.analyse(picture).features, atol=1e-3)


def test_without_an_adapter_and_joint_terms_a_run_is_the_control(make: MakeTask, tmp_path: Path) -> None:
    task = make(adapter=False)
    assert task.model.adapter is None
    made_run = TrainingEngine(task, [phase(contrast=0, drift=0)], tmp_path)
    made_run.run()
    assert made_run.step == 2


def test_the_adapter_can_learn_alone(make: MakeTask, tmp_path: Path) -> None:
    task = make()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    frozen = ("analysis", "synthesis", "prior", "log_gain")
    TrainingEngine(task, [replace(phase(), steps=3, freeze=frozen)], tmp_path).run()
    changed = {k.split(".")[0] for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"adapter"}


def test_windows_and_captioned_photographs_take_turns(make: MakeTask) -> None:
    task = make()
    task.begin(phase(captioned=0.4))
    samples = [task.sample(phase()) for _ in range(40)]
    captioned = [s for s in samples if s.guide is not None]
    assert 8 <= len(captioned) <= 24
    assert {tuple(s.pixels.shape) for s in captioned} == {(3, 3, HEIGHT, WIDTH)}
    assert {tuple(s.pixels.shape) for s in samples if s.guide is None} == {(2, 3, 64, 64)}


def test_the_joint_terms_reach_the_pictures(make: MakeTask) -> None:
    task = make()
    task.begin(phase())
    sample = task.sample(phase())
    assert sample.guide is not None
    x_hat = torch.rand_like(sample.pixels, requires_grad=True)
    weighted, parts = task.further(sample, x_hat)
    assert isinstance(weighted, Tensor)
    assert set(parts) == {"drift", "contrast"}
    torch.testing.assert_close(weighted, 0.5 * parts["contrast"] + 0.5 * parts["drift"])
    weighted.sum().backward()
    assert x_hat.grad is not None
    assert (x_hat.grad.abs().sum((1, 2, 3)) > 0).all()


def test_the_recipe_that_shipped_is_understood() -> None:
    phases = read_phases(Path("training/runs/taco-01.json"))
    found = [TacoSettings(**p.settings) for p in phases]
    assert [p.length for p in phases] == [3800, 1617]
    assert [s.rate_only for s in found] == [False, True]
