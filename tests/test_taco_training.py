# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training with captions: every term of the joint loss pulls the right way; runs start unchanged, resume and export."""

from __future__ import annotations

import argparse
import io
import json
import math
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import joint_parts
import numpy as np
import pytest
import torch
from pictures import synthetic
from torch import Tensor

from picogram.latent.codec import PhotoCodec
from picogram.latent.guide import Guide
from picogram.latent.model import LatentCodec
from picogram.semantics.features import Features
from picogram.semantics.joint import JointHeads
from training.export_latent import export, load_checkpoint
from training.pack import pack as pack_crops
from training.taco.data import Captioned, without_some
from training.taco.losses import contrast, drift
from training.taco.pack import HEIGHT, WIDTH, pack
from training.taco.train import TacoTrainer
from training.train_latent import Crops, Trainer

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
    """Two captions a photo, of 2 and 3 tokens, whose states tell which caption of which photo they are of."""
    out = tmp_path_factory.mktemp("states")
    width = joint_parts.CONFIG.text_width
    places = [0]
    for _ in range(COUNT):
        places += [places[-1] + 2, places[-1] + 5]
    values = np.zeros((places[-1], width), np.float16)
    for caption in range(2 * COUNT):
        values[places[caption] : places[caption + 1], :] = np.random.default_rng(caption).normal(size=width)
    np.save(out / "states.npy", values)
    captions = list(range(0, 2 * COUNT + 1, 2))
    (out / "index.json").write_text(json.dumps({"captions": captions, "states": places}))
    return out


@pytest.fixture(scope="module")
def heads() -> JointHeads:
    return joint_parts.heads().eval()


def test_whole_wide_photos_are_packed_and_the_last_tenth_is_kept_apart(photos: Path) -> None:
    about = json.loads((photos / "photos.json").read_text())
    assert (about["train"], about["val"]) == (9, 2)
    assert about["numbers"] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (photos / "photos.u8").stat().st_size == 11 * HEIGHT * WIDTH * 3


def test_photos_come_with_captions_of_their_own(photos: Path, states: Path, heads: JointHeads) -> None:
    data = Captioned(photos, states, heads, seed=1)
    batch = data.batch(64)
    assert batch.pixels.shape == (64, 3, HEIGHT, WIDTH)
    originals = torch.from_numpy(np.array(data.pixels)).permute(0, 3, 1, 2).float() / 255
    for pixels, values, mask in zip(batch.pixels, batch.guide.states, batch.guide.mask, strict=True):
        alike = [((o - pixels).abs().mean(), (o.flip(2) - pixels).abs().mean()) for o in originals]
        photo = int(data.numbers[int(torch.tensor(alike).amin(1).argmin())])
        captions = [data.guide(np.array([2 * photo + k])).states[0, 0] for k in (0, 1)]
        assert any(torch.equal(values[0], caption) for caption in captions)
        assert int(mask.sum()) in (2, 3)
    torch.testing.assert_close(batch.texts, data.vectors(batch.guide))
    assert data.bank.shape == (9, joint_parts.CONFIG.width)


def test_a_caption_that_is_dropped_is_dropped_whole(photos: Path, states: Path, heads: JointHeads) -> None:
    guide = Captioned(photos, states, heads, seed=1).batch(2).guide
    left = without_some(guide, torch.tensor([False, True]))
    assert not left.mask[0].any()
    assert torch.equal(left.mask[1], guide.mask[1])


# runs


class SmallTrainer(TacoTrainer):
    """With features of colours only."""

    def networks(self) -> tuple[JointHeads, Callable[[Tensor], Features]]:
        return joint_parts.heads().eval().requires_grad_(False), joint_parts.Colours()


SETTINGS = {"captioned": 1.0, "photos": 2, "drop": 0.3, "contrast": 0.5, "drift": 0.5, "share": 1.0}
PHASE = {"steps": 2, "batch": 2, "crop": 64, "warmup": 1, "loss": {"mse": 100, "lpips_alex": 0}}


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    (folder / "pictures").mkdir()
    for i in range(12):
        synthetic(i, 100, 90).save(folder / "pictures" / f"{i:02d}.png")
    pack_crops([str(folder / "pictures")], folder, size=64, seed=1, limit=None)
    return folder


def arguments(out: Path, crops: Path, photos: Path, states: Path, **settings: float) -> argparse.Namespace:
    out.mkdir(exist_ok=True)
    recipe = out / "recipe.json"
    recipe.write_text(json.dumps({"taco": SETTINGS | settings, "phases": [PHASE]}))
    return argparse.Namespace(
        recipe=recipe,
        data=crops,
        metrics=crops,
        photos=photos,
        states=states,
        start=None if out.name == "start" else out.parent / "start" / "last.pt",
        out=out,
        seed=1,
        log_every=1,
        save_every=0,
        stop_after=math.inf,
    )


@pytest.fixture(scope="module")
def folder(crops: Path, photos: Path, states: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a checkpoint to start from."""
    folder = tmp_path_factory.mktemp("runs")
    args = arguments(folder / "start", crops, photos, states)
    Trainer(args).save()
    return folder


def test_a_run_starts_from_the_codec_that_it_is_given_unchanged(
    folder: Path, crops: Path, photos: Path, states: Path
) -> None:
    trainer = SmallTrainer(arguments(folder / "unchanged", crops, photos, states))
    started, given = trainer.model.eval(), load_checkpoint(folder / "start" / "last.pt")[0]
    x, rate, guide = torch.rand(1, 3, 64, 64), torch.tensor([0.4]), trainer.photos.batch(1).guide
    assert torch.equal(started.analyse(x, rate, guide), given.analysis(x, rate))


def test_a_stopped_run_resumes_and_its_export_listens(
    folder: Path, crops: Path, photos: Path, states: Path
) -> None:
    args = arguments(folder / "run", crops, photos, states)
    first = SmallTrainer(args)
    first.run(time.time() + 0.02)
    assert first.step == 1
    second = SmallTrainer(args)
    assert second.step == 1
    second.run(math.inf)
    assert second.step == 2
    assert second.model.adapter is not None
    torch.nn.init.normal_(second.model.adapter.coarse.out.weight)
    second.average.values = second.model.state_dict()
    second.save()
    model, _ = load_checkpoint(args.out / "last.pt")
    codec = PhotoCodec(export(model, Crops(crops, "train", 7), batches=1), model=0)
    picture, guide = np.asarray(synthetic(3, 96, 80)), second.photos.batch(1).guide
    heard = codec.analyse(picture, Guide(guide.states, guide.mask))
    assert not torch.allclose(heard.features, codec.analyse(picture).features, atol=1e-3)


def test_without_an_adapter_and_joint_terms_a_run_is_the_control(
    folder: Path, crops: Path, photos: Path, states: Path
) -> None:
    args = arguments(folder / "control", crops, photos, states, adapter=False, contrast=0, drift=0)
    trainer = SmallTrainer(args)
    assert isinstance(trainer.model, LatentCodec)
    assert trainer.model.adapter is None
    trainer.run(math.inf)
    assert trainer.step == 2


def test_the_joint_terms_reach_the_pictures(folder: Path, crops: Path, photos: Path, states: Path) -> None:
    trainer = SmallTrainer(arguments(folder / "terms", crops, photos, states))
    sample = trainer.sample(trainer.phases[0])
    assert sample.guide is not None
    x_hat = torch.rand_like(sample.pixels, requires_grad=True)
    weighted, parts = trainer.further(trainer.phases[0], sample, x_hat)
    assert isinstance(weighted, Tensor)
    assert set(parts) == {"drift", "contrast"}
    expected = SETTINGS["contrast"] * parts["contrast"] + SETTINGS["drift"] * parts["drift"]
    torch.testing.assert_close(weighted, expected)
    weighted.sum().backward()
    assert x_hat.grad is not None
    assert (x_hat.grad.abs().sum((1, 2, 3)) > 0).all()
