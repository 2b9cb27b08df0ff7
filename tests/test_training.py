# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training: packing, resuming, exporting, carrying; on a few synthetic pictures and squared error alone."""

from __future__ import annotations

import argparse
import io
import json
import math
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import synthetic

from picogram.latent.codec import PhotoCodec
from picogram.latent.coding import decode_latents, encode_latents
from picogram.latent.model import LatentCodec
from picogram.latent.prior import bounded
from picogram.latent.transforms import interpolate_anchors, klt_of_patches
from training.adversary import Adversary
from training.export_latent import counts_of, export, load_checkpoint
from training.lent_gpu import read_parts, write_parts
from training.losses import Distortion, LossWeights
from training.pack import pack
from training.train_latent import Crops, Trainer


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for i in range(20):
            buffer = io.BytesIO()
            synthetic(i, 160, 130).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{i:02d}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    pack([str(folder / "pictures.tar")], folder, size=64, seed=1, limit=None)
    return folder


def arguments(crops: Path, out: Path) -> argparse.Namespace:
    recipe = out / "recipe.json"
    out.mkdir(exist_ok=True)
    phase = {"steps": 4, "batch": 2, "crop": 64, "adversarial": 0.1, "loss": {"mse": 100, "lpips_alex": 0}}
    recipe.write_text(json.dumps({"phases": [phase]}))
    return argparse.Namespace(
        recipe=recipe,
        data=crops,
        metrics=crops,
        out=out,
        start=None,
        seed=1,
        log_every=2,
        save_every=0,
        stop_after=math.inf,
    )


def test_the_last_tenth_of_a_source_is_held_out(crops: Path) -> None:
    meta = json.loads((crops / "meta.json").read_text())
    assert meta["val"] / (meta["train"] + meta["val"]) == pytest.approx(0.1, abs=0.05)
    held = Crops(crops, "val", 1).batch(4, 48)
    assert held.shape == (4, 3, 48, 48)
    assert 0 <= float(held.min()) < float(held.max()) <= 1


def test_packing_twice_gives_the_same_crops(crops: Path, tmp_path: Path) -> None:
    pack([str(crops / "pictures.tar")], tmp_path, size=64, seed=1, limit=None)
    assert (tmp_path / "train.u8").read_bytes() == (crops / "train.u8").read_bytes()


def test_a_stopped_run_resumes_and_its_export_codes_pictures(crops: Path, tmp_path: Path) -> None:
    args = arguments(crops, tmp_path / "run")
    first = Trainer(args)
    first.run(until=time.time())
    second = Trainer(args)
    assert second.step == first.step < 4
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    second.run(until=math.inf)
    assert Trainer(args).phase_index == 1

    model, counters = load_checkpoint(args.out / "last.pt")
    assert counters["samples"] == 8
    codec = PhotoCodec(export(model, Crops(crops, "train", 7), batches=1), model=0)
    with torch.inference_mode():
        y, z = codec._latents(codec.analyse(np.asarray(synthetic(1, 80, 64))), 128)
    strings, expected = encode_latents(codec.prior, y, z, [128])
    assert torch.equal(decode_latents(codec.prior, strings, [128], *y.shape[2:]), expected)


def test_weights_come_back_from_a_lent_machine_in_small_parts(tmp_path: Path) -> None:
    model = LatentCodec()
    state = {"model": model.state_dict(), "average": model.state_dict(), "step": 7, "phase_index": 0}
    state |= {"phase_step": 7, "phase_seconds": 1.0, "total_seconds": 2.0, "samples": 14}
    write_parts(state, tmp_path)
    assert max(p.stat().st_size for p in tmp_path.iterdir()) < 16 * 2**20
    back = read_parts(tmp_path)
    assert back["step"] == 7
    for name, value in model.state_dict().items():
        assert torch.allclose(back["average"][name], value, atol=1e-2, rtol=1e-3)  # type: ignore[index]


def test_the_adversary_learns_to_tell_pictures_apart_and_the_codec_feels_it() -> None:
    torch.manual_seed(0)
    adversary = Adversary(8, torch.device("cpu"), lr=1e-3)
    x, y = torch.rand(4, 3, 32, 32), torch.randn(4, 8, 2, 2)
    flat = torch.full_like(x, 0.5)
    losses = [adversary.learn(x, flat, y) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    guess = flat.clone().requires_grad_()
    fooling = adversary.fooling(guess, y)
    assert fooling.shape == (4,)
    fooling.sum().backward()
    assert guess.grad is not None
    assert float(guess.grad.abs().sum()) > 0
    assert adversary.fooling(x, y).mean().item() < fooling.mean().item()


def test_squared_error_grows_with_the_error() -> None:
    distortion = Distortion(Path(), LossWeights(lpips_alex=0))
    x = torch.full((2, 3, 32, 32), 0.5)
    near, far = (float(distortion(x, x + d)[0].mean()) for d in (0.01, 0.1))
    assert 0 < near < far


def test_the_klt_packs_energy_into_its_first_components() -> None:
    patches = torch.stack([torch.from_numpy(np.asarray(synthetic(s, 16, 16)) / 255.0) for s in range(200)])
    basis, deviations = klt_of_patches(patches.permute(0, 3, 1, 2), 32)
    flat = basis.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(32), atol=1e-3)
    assert (deviations.diff() <= 1e-6).all()


def test_a_codec_that_starts_from_the_klt_already_reconstructs() -> None:
    patches = torch.stack([torch.from_numpy(np.asarray(synthetic(s, 16, 16)) / 255.0) for s in range(300)])
    model = LatentCodec()
    model.start_from_klt(*klt_of_patches(patches.permute(0, 3, 1, 2).float(), 128))
    x = torch.from_numpy(np.asarray(synthetic(900, 64, 64)).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        x_hat, bits = model(x, torch.tensor([1.0]), noisy=False)
    assert float((x - x_hat).square().mean()) < 0.5 * float(x.var())
    assert torch.isfinite(bits).all()


def test_counts_are_positive_symmetric_and_complete() -> None:
    counts = counts_of(torch.tensor([0.0, 1.0, 50.0, 3.0, 0.5]))
    assert int(counts.sum()) == 2**24
    assert int(counts.min()) >= 1
    assert torch.equal(counts, counts.flip(0))


def test_bounds_keep_the_gradients_that_lead_back() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    bounded(x, 0.0, 1.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


def test_anchor_tables_interpolate_linearly() -> None:
    table = torch.tensor([[0.0], [10.0], [30.0]])
    found = interpolate_anchors(table, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert found.flatten().tolist() == [0.0, 5.0, 10.0, 20.0, 30.0]
