# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the diffusion model is trained with: photographs, the frozen codec, published weights, judges."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_runs import photographs
from pictures import synthetic
from safetensors.torch import load_file
from torch import Tensor, nn

from picogram.bench.kid import kid, patches
from picogram.diffusion.conditioning import WordVectors
from picogram.diffusion.diffusion_net import DiffusionNet
from picogram.diffusion.rrdb import RRDBTrunk
from picogram.latent.codec import PhotoCodec, load_codec, unpack_floats
from picogram.latent.coding import walk_values
from picogram.models import DEFAULT_LATENT, latent_weights
from picogram.models.store import features_file
from picogram.semantics.features import FeatureNet
from training.diffusion import pretrained
from training.diffusion.export import pack as pack_weights
from training.diffusion.losses import Adversary, DiffusionLossWeights, Distances, Moments, excess, windows
from training.frozen import FrozenCodec
from training.photos import LONGEST, PhotoBank, decode, held_out, read_tar

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("diffusion"))


def test_what_is_held_out_depends_on_the_source() -> None:
    names = [f"{i:03d}" for i in range(40)]
    assert held_out(names, "photos1024.tar") == {"000", "010", "020", "030"}
    assert held_out(names, "flickr8k.tar") == {"036", "037", "038", "039"}


def test_captions_come_with_their_photographs_and_the_last_tenth_is_held_out(folder: Path) -> None:
    train, held = (list(read_tar(folder / "flickr.tar", part)) for part in (False, True))
    assert [p.captions[0] for p in train] == [f"number {i}" for i in range(9)]
    assert [p.captions for p in held] == [("number 9",) * 5]
    assert decode(held[0].data, held[0].aspect).shape == (192, 256, 3)
    assert decode(held[0].data).shape == (64, 64, 3)


def test_windows_are_cut_from_the_photographs_and_captions_are_dropped_as_often_as_asked(
    folder: Path,
) -> None:
    bank = PhotoBank(folder / "photos", CPU, np.random.default_rng(1))
    batch = bank.windows(6, 64, natural=1.0)
    assert batch.originals.shape == (6, 3, 64, 64)
    assert batch.ids.shape == (6, 0)
    places = []
    for i in range(3):
        views = bank.picture(i).unfold(0, 64, 1).unfold(1, 64, 1).float() / 255
        for window in batch.originals:
            places += [i for w in (window, window.flip(2)) if bool((views == w).all((2, 3, 4)).any())]
    assert len(places) >= 6
    assert bank.windows(2, 64, natural=0.0).originals.shape == (2, 3, 64, 64)
    assert bank.captioned(8, 0.0).ids.shape == (8, LONGEST)
    assert set(bank.captioned(40, 0.0).lengths.tolist()) == {1, 2}
    assert bank.captioned(40, 1.0).lengths.tolist() == [0] * 40


def decoded_latents(codec: PhotoCodec, pictures: torch.Tensor, rates: list[int]) -> torch.Tensor:
    """``pictures [B, 3, H, W] 0..1`` with sides multiples of 64: latents as a decoder has them, gains undone."""
    position = torch.tensor(rates) / 255
    gain = codec.net.gain(position)
    y = codec.net.analyse(pictures, position) * gain
    z = codec.net.prior.hyper_analysis(y)
    latents: torch.Tensor = walk_values(codec.prior, y, z, rates, lambda *_: None).float() / gain
    return latents


def test_the_frozen_codec_gives_what_decoders_have(folder: Path) -> None:
    frozen, codec = FrozenCodec(latent_weights(DEFAULT_LATENT)), load_codec()
    x = torch.stack(
        [torch.from_numpy(np.array(synthetic(i, 128, 128))).permute(2, 0, 1) / 255 for i in (1, 2)]
    )
    rates = [60, 180]
    position = torch.tensor(rates) / 255
    base, latent = frozen(x, position)
    with torch.inference_mode():
        expected = decoded_latents(codec, x, rates)
        shown = codec.net.synthesis(expected, position).clamp(0, 1)
    # a float may round a value at an edge the other way, and those after it then differ, too
    assert float((latent - expected).abs().mean()) < 0.35 * float(expected.abs().mean())
    assert float((base - shown).abs().mean()) < 0.02
    ours, theirs = ((v - x).square().mean((1, 2, 3)).log10() * -10 for v in (base, shown))
    assert float((ours - theirs).abs().max()) < 0.5
    assert torch.allclose(base * 255, (base * 255).round(), atol=1e-3)


def published(trunk: RRDBTrunk) -> bytes:
    """As ncnn writes it."""
    parts = []
    for conv in pretrained.convolutions(trunk):
        assert conv.bias is not None
        weight = conv.weight.detach().half().numpy().tobytes()
        bias = conv.bias.detach().numpy().tobytes()
        parts += [struct.pack("<I", pretrained.HALF_FLAG), weight, b"\0" * (-len(weight) % 4), bias]
    return b"".join(parts)


def test_published_weights_are_read_and_fewer_blocks_kept(tmp_path: Path) -> None:
    torch.manual_seed(2)
    trunk, path = RRDBTrunk(6, 3, 5), tmp_path / "net.bin"
    path.write_bytes(published(trunk))
    found = pretrained.load(path, 6, 3, 5)
    for name, value in trunk.state_dict().items():
        assert torch.equal(found.state_dict()[name], value if "bias" in name else value.half().float())
    fewer = RRDBTrunk(6, 3, 3)
    fewer.load_state_dict(pretrained.pruned(found, 3))
    assert pretrained.kept(3, 5) == [0, 2, 4]
    for to, source in enumerate((0, 2, 4)):
        ours, theirs = f"blocks.{to}.dense.1.convs.4.weight", f"blocks.{source}.dense.1.convs.4.weight"
        assert torch.equal(fewer.get_parameter(ours), found.get_parameter(theirs))


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: d + b"\0" * 8, lambda d: b"\1" + d[1:]])
def test_a_file_of_another_network_is_refused(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(damage(published(RRDBTrunk(6, 3, 1))))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"net\.bin"):
        pretrained.load(path, 6, 3, 1)


def test_export_keeps_weights_within_half_a_step_of_their_scale() -> None:
    torch.manual_seed(6)
    weights = {"conv.weight": torch.randn(5, 4, 3, 3), "conv.bias": torch.randn(5)}
    packed = pack_weights(weights)
    back = unpack_floats(packed)
    assert packed["conv.weight"].dtype == torch.int8
    worst = (back["conv.weight"] - weights["conv.weight"]).abs().flatten(1).amax(1)
    assert bool((worst <= packed["conv.weight.scale"] * 0.501).all())
    assert torch.allclose(back["conv.bias"], weights["conv.bias"], atol=1e-2)


def test_every_tensor_of_the_network_is_on_its_device() -> None:
    with torch.device("meta"):
        net = DiffusionNet()
        latent, one = torch.zeros(1, 128, 4, 4), torch.zeros(1)
        text = net.encode(lent_words())
        picture = torch.zeros(1, 3, 64, 64)
        assert net(picture, picture, latent, one, one, text).device.type == "meta"


def lent_words() -> WordVectors:
    return WordVectors(torch.zeros(1, 2, 576), torch.ones(1, 2, dtype=torch.bool))


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
    distances = Distances(tmp_path, DiffusionLossWeights(lpips=0, dists=0, semantic=1, moments=1), net)
    x = torch.rand(2, 3, 96, 96)
    near, far = (distances(x, (x + a * torch.randn_like(x)).clamp(0, 1)).parts for a in (0.02, 0.3))
    assert float(near["semantic"]) < float(far["semantic"])
    assert set(near) >= {"semantic", "moments"}


@pytest.mark.metrics
def test_every_judge_prefers_the_original_and_pulls_towards_it() -> None:
    from picogram.metrics.weights import find

    found = find()
    if found is None:
        pytest.skip("the metrics' weights are not here")
    torch.manual_seed(9)
    distances = Distances(found, DiffusionLossWeights(smooth=1, vgg_crop=64, vgg_share=1)).to(CPU)
    x = torch.from_numpy(np.array(synthetic(5, 96, 96))).permute(2, 0, 1)[None] / 255
    near, far = (distances(x, x + a * torch.randn_like(x)).parts for a in (0.02, 0.3))
    for name in ("charbonnier", "lpips", "lpips_vgg", "dists", "smooth"):
        assert float(near[name]) < float(far[name]), name
    outside = (x + 2).requires_grad_(True)
    distances.total(distances(x, outside).parts).backward()
    assert outside.grad is not None
    assert float(outside.grad.abs().sum()) > 0


def test_distances_are_smallest_for_the_original(folder: Path) -> None:
    distances = Distances(folder, DiffusionLossWeights(lpips=0, dists=0))
    x = torch.rand(2, 3, 64, 64)
    same, near, far = (distances(x, x + d).parts["charbonnier"] for d in (0.0, 0.05, 0.2))
    assert same < near < far


def test_windows_are_of_the_same_place_in_all_pictures() -> None:
    x = torch.rand(1, 3, 40, 50)
    a, b = windows([x, 2 * x], 16)
    assert a.shape == (1, 3, 16, 16)
    assert torch.equal(2 * a, b)
    assert torch.equal(windows([x], 64)[0], x)


class Blurred(nn.Module):
    """One number: how much of the difference between neighbours stays."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        smooth = nn.functional.avg_pool2d(x, 3, 1, 1)
        return smooth + self.keep * (x - smooth)


def test_the_adversary_learns_a_difference_and_shows_the_way_out_of_it() -> None:
    torch.manual_seed(1)
    adversary, blurred = Adversary(CPU, lr=2e-3), Blurred()
    real = [torch.rand(4, c, 16, 16) for c in (128, 256, 512)]
    losses = [float(adversary.learn(real, [blurred(f) for f in real])) for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]
    adversary.fooling(real, [blurred(f) for f in real]).backward()
    assert blurred.keep.grad is not None
    assert float(blurred.keep.grad) < 0  # sharper is more like the real ones
    assert all(p.requires_grad for p in adversary.net.parameters())


def test_more_contrast_does_not_fool_the_adversary() -> None:
    torch.manual_seed(2)
    adversary = Adversary(CPU)
    features = [torch.rand(2, c, 8, 8) for c in (128, 256, 512)]
    adversary.net.eval()
    plain, louder = (adversary.net([v * f + v for f in features]) for v in (1.0, 3.0))
    for a, b in zip(plain, louder, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


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
