# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training the diffusion model: pairs, windows, adversary, resuming, measuring; on synthetic pictures."""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import synthetic
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from picogram.bench.kid import kid, patches
from picogram.latent.codec import load_codec, unpack_floats
from picogram.models.store import features_file
from picogram.semantics.features import FeatureNet
from training.diffusion.data import Pairs
from training.diffusion.export import pack as pack_weights
from training.diffusion.losses import Adversary, Distances, LossWeights, Moments, Seen, excess, windows
from training.diffusion.pairs import Photo, Writer, captioned_photos, write_crops, write_photos
from training.diffusion.train import Trainer
from training.diffusion.validate import Case, Restorer, load_net, to_item
from training.pack import pack


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``crops``, ``pairs``, ``photos.tar`` and ``lm.safetensors``."""
    root = tmp_path_factory.mktemp("diffusion")
    with tarfile.open(root / "plain.tar", "w") as tar:
        for i in range(12):
            add(tar, f"{i:02d}.png", png(synthetic(i, 120, 100)))
    pack([str(root / "plain.tar")], root / "crops", size=64, seed=1, limit=6)
    rows = [{"file": f"{i:02d}.png", "captions": [f"number {i}"] * 5, "true_aspect": 1.5} for i in range(10)]
    with tarfile.open(root / "photos.tar", "w") as tar:
        for i, row in enumerate(rows):
            add(tar, row["file"], png(synthetic(i, 64, 64)))
        add(tar, "captions.jsonl", "\n".join(json.dumps(r) for r in rows).encode())
    pairs = root / "pairs"
    pairs.mkdir()
    codec, rng = load_codec(), random.Random(1)
    found = [Photo(png(synthetic(i, 64, 64)), ["a", "b c", "d", "e", "f g h"], 1.5) for i in range(3)]
    sources = {
        "crops": write_crops(codec, root / "crops", pairs, rng, 6),
        "wide": write_photos(codec, found, Writer(pairs, "wide", 64, 128), rng, lambda t: [7] * len(t)),
    }
    (pairs / "meta.json").write_text(json.dumps({"sources": sources}))
    embedding = torch.randint(-9, 9, (40, 576), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    save_file({"embedding": embedding, "embedding.scale": torch.ones(40)}, root / "lm.safetensors")
    return root


def arguments(folder: Path, out: Path) -> argparse.Namespace:
    out.mkdir(exist_ok=True)
    loss = {"charbonnier": 1.0, "lpips": 0.0, "dists": 0.0, "adversary_crop": 64}
    common = {"batch": 2, "crop": 64, "sources": {"crops": 0.5, "wide": 0.5}, "warmup": 1, "start_share": 0.5}
    phases = [
        common | {"steps": 2, "loss": loss},
        common | {"steps": 2, "loss": loss | {"adversarial": 0.1}, "ease": 1, "own_share": 1.0},
    ]
    (out / "recipe.json").write_text(json.dumps({"phases": phases}))
    return argparse.Namespace(
        recipe=out / "recipe.json",
        data=folder / "pairs",
        text=folder / "lm.safetensors",
        metrics=folder,
        features=None,
        start=None,
        out=out,
        seed=1,
        log_every=2,
        save_every=0,
        stop_after=math.inf,
    )


def test_the_last_tenth_of_the_photographs_is_held_out(folder: Path) -> None:
    train, held = captioned_photos(folder / "photos.tar")
    assert [p.captions[0] for p in train] == [f"number {i}" for i in range(9)]
    assert [p.captions[0] for p in held] == ["number 9"]


def test_base_pictures_resemble_their_originals_and_belong_to_their_latents(folder: Path) -> None:
    source = Pairs(folder / "pairs", 1).sources["crops"]
    codec = load_codec()
    for row in range(source.count):
        original, base = (a[row].astype(float) for a in (source.original, source.base))
        others = [np.abs(original - b).mean() for i, b in enumerate(source.base) if i != row]
        assert np.abs(original - base).mean() < min(others)
        latent = torch.from_numpy(source.latent[row].astype(np.float32)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            decoded = codec.net.synthesis(latent, torch.tensor([float(source.rate[row]) / 255]))
        shown = decoded[0].permute(1, 2, 0).clamp(0, 1).mul(255).numpy()
        assert np.abs(shown - base).max() <= 3


def test_windows_of_pictures_and_latents_are_of_the_same_place(tmp_path: Path) -> None:
    rows, cols, writer = 4, 8, Writer(tmp_path, "s", 64, 128)
    cells = np.arange(rows * cols).reshape(rows, cols)
    picture = np.repeat(cells.repeat(16, 0).repeat(16, 1)[None, ..., None], 3, 3).astype(np.uint8)
    latent = np.repeat(cells[None, ..., None], 128, 3).astype(np.float16)
    writer.put(original_u8=picture, base_u8=picture, latent_f16=latent, rate_u8=np.array([51], np.uint8))
    (tmp_path / "meta.json").write_text(json.dumps({"sources": {"s": writer.close()}}))
    batch = Pairs(tmp_path, 1).batch("s", 8, 32, 0.0)
    found = (batch.original * 255).round()
    assert torch.equal(found[:, 0, ::16, ::16], batch.latent[:, 0])
    assert torch.equal(batch.original, batch.base)
    assert batch.rate.tolist() == pytest.approx([0.2] * 8)
    assert len({float(v) for v in batch.latent[:, 0, 0, 0]}) > 1


def test_captions_are_dropped_as_often_as_asked(folder: Path) -> None:
    pairs = Pairs(folder / "pairs", 1)
    assert set(pairs.batch("wide", 40, 64, 0.0).lengths.tolist()) == {1, 3, 5}
    assert pairs.batch("wide", 40, 64, 1.0).lengths.tolist() == [0] * 40
    some = pairs.batch("wide", 200, 64, 0.3).lengths
    assert 30 < int((some == 0).sum()) < 90
    assert pairs.batch("crops", 4, 64, 0.0).ids.shape == (4, 0)


def test_a_stopped_run_resumes_and_its_weights_restore_pictures(folder: Path, tmp_path: Path) -> None:
    args = arguments(folder, tmp_path / "run")
    first = Trainer(args)
    first.run(time.time() - 1)
    assert (first.step, first.phase_index) == (1, 0)
    second = Trainer(args)
    assert second.step == 1
    second.run(math.inf)
    assert (second.step, second.phase_index, second.samples) == (4, 2, 8)
    net, samples = load_net(args.out / "last.pt")
    assert samples == 8
    last = load_file(args.out / "phase-1.safetensors")
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in last.items())
    assert float(last["head.weight"].abs().max()) > 0
    picture = np.asarray(synthetic(3, 50, 70))
    item = to_item(load_codec(), picture, "", bpp=0.5)
    assert 0 < item.bpp <= 0.5
    (out,), _ = Restorer(net, [item])(Case(1))
    assert out.shape == (3, *picture.shape[:2])
    assert float((out - item.base.pixels).abs().mean()) < 0.1


def test_export_keeps_weights_within_half_a_step_of_their_scale() -> None:
    torch.manual_seed(6)
    weights = {"conv.weight": torch.randn(5, 4, 3, 3), "conv.bias": torch.randn(5)}
    packed = pack_weights(weights)
    back = unpack_floats(packed)
    assert packed["conv.weight"].dtype == torch.int8
    worst = (back["conv.weight"] - weights["conv.weight"]).abs().flatten(1).amax(1)
    assert bool((worst <= packed["conv.weight.scale"] * 0.501).all())
    assert torch.allclose(back["conv.bias"], weights["conv.bias"], atol=1e-2)


def test_moments_pull_predictions_towards_the_originals() -> None:
    torch.manual_seed(7)
    moments, real = Moments(size=256), torch.rand(256, 16)
    fake = torch.rand(8, 16) + 1.0
    for _ in range(3):
        moments(real[:8], fake)
    moving = fake.clone().requires_grad_(True)
    moments(real, moving).backward()
    assert moving.grad is not None
    assert float((moving.grad * (fake - real.mean(0))).sum()) > 0  # descending goes towards them
    assert moments.real is not None
    assert len(moments.real) == 256


def test_hatching_counts_where_the_original_is_flat_and_only_there() -> None:
    flat, busy = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64)
    hatching = torch.zeros(64, 64)
    hatching[::2] = 0.1
    plain = float(excess(flat, flat))
    assert plain < 1e-6
    assert float(excess(flat, flat + hatching)) > 0.02
    assert float(excess(busy, busy + hatching)) < 1e-4


@pytest.mark.lmm
def test_terms_on_image_features_grow_with_the_damage(tmp_path: Path) -> None:
    torch.manual_seed(8)
    net = FeatureNet(load_file(features_file()))
    distances = Distances(tmp_path, LossWeights(lpips=0, dists=0, semantic=1, moments=1), net)
    x = torch.rand(2, 3, 96, 96)
    near, far = (distances(x, (x + a * torch.randn_like(x)).clamp(0, 1), x)[0] for a in (0.02, 0.3))
    assert float(near["semantic"]) < float(far["semantic"])
    assert set(near) >= {"semantic", "moments"}


def test_being_asked_to_stop_keeps_the_step(folder: Path, tmp_path: Path) -> None:
    args = arguments(folder, tmp_path / "run")
    trainer = Trainer(args)
    trainer.stop = True
    trainer.phase_index = 1
    trainer.run(math.inf)
    assert trainer.step == 0
    assert not (args.out / "last.pt").exists()


def test_distances_are_smallest_for_the_original(folder: Path) -> None:
    distances = Distances(folder, LossWeights(lpips=0, dists=0))
    x = torch.rand(2, 3, 64, 64)
    same, near, far = (distances(x, x + d, x)[0]["charbonnier"] for d in (0.0, 0.05, 0.2))
    assert same < near < far


def test_windows_are_of_the_same_place_in_all_pictures() -> None:
    x = torch.rand(1, 3, 40, 50)
    a, b = windows([x, 2 * x], 16)
    assert a.shape == (1, 3, 16, 16)
    assert torch.equal(2 * a, b)
    assert windows([x], 64)[0] is x


class Tinted(nn.Module):
    """One number that could hide the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def test_the_adversary_learns_a_difference_and_shows_the_way_out_of_it() -> None:
    torch.manual_seed(1)
    adversary = Adversary(torch.device("cpu"), lr=2e-3)
    base = torch.rand(4, 3, 64, 64)
    features = [torch.rand(4, c, 8, 8) for c in (128, 256, 512)]
    real = Seen(torch.cat((base + 0.3, base), 1), features)
    fake = Seen(torch.cat((base - 0.3, base), 1), [-f for f in features])
    hinges = [adversary.learn(real, fake) for _ in range(25)]
    assert hinges[-1] < 0.7 * hinges[0]
    tint = Tinted()
    adversary.fooling(Seen(torch.cat((tint(base - 0.3), base), 1), [])).backward()
    assert tint.shift.grad is not None
    assert float(tint.shift.grad.sum()) < 0  # brighter is more like the real ones
    assert all(p.requires_grad for p in adversary.net.parameters())


def test_kid_is_near_nothing_within_a_distribution_and_grows_with_the_shift() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 400, 64, generator=generator)
    same, _ = kid(a, b, size=100)
    near, _ = kid(a, b + 0.2, size=100)
    far, _ = kid(a, b + 0.5, size=100)
    assert abs(same) < 0.02 < near < far


def test_patches_cover_a_picture_on_two_grids() -> None:
    picture = torch.arange(3 * 40 * 40).float().view(3, 40, 40)
    found = patches(picture, 20)
    assert found.shape == (5, 3, 20, 20)
    assert torch.equal(found[3], picture[:, 20:, 20:])
    assert torch.equal(found[4], picture[:, 10:30, 10:30])
