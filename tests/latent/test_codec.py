# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped latent codec: exact where it must be, seamless where it is cut, honest about its size."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from pictures import synthetic
from PIL import Image
from reference_reader import Reader
from torch import Tensor

from picogram.bitstream import Header, Picogram, Profile, serialise
from picogram.errors import CorruptBitstream
from picogram.exact import Kernel
from picogram.latent import codec as codec_module
from picogram.latent import tiling
from picogram.latent.codec import ANALYSIS_HALO, PhotoCodec, load_codec, prior_tensors
from picogram.latent.coding import decode_latents, encode_latents, estimate_bits
from picogram.latent.exact_prior import ExactPrior
from picogram.latent.prior import code_length, scale_of_index
from picogram.latent.transforms import Synthesis, TransformConfig
from picogram.models import DEFAULT_LATENT, latent_weights


@pytest.fixture(scope="module")
def codec() -> PhotoCodec:
    return load_codec()


def latents(codec: PhotoCodec, picture: Image.Image, rate: int) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return codec._latents(codec.analyse(np.asarray(picture)), rate)


@pytest.mark.parametrize("rate", [0, 1, 77, 128, 254, 255])
def test_latents_survive_the_file(codec: PhotoCodec, photo: Image.Image, rate: int) -> None:
    y, z = latents(codec, photo, rate)
    strings, expected = encode_latents(codec.prior, y, z, [rate])
    assert torch.equal(decode_latents(codec.prior, strings, [rate], *y.shape[2:]), expected)
    assert float((expected - y).abs().median()) <= 0.5


def test_batches_and_threads_write_and_read_the_same_bytes(codec: PhotoCodec) -> None:
    pictures = [synthetic(seed, 96, 80) for seed in range(8)]
    rates = [0, 40, 80, 120, 160, 200, 240, 255]
    pairs = [latents(codec, p, r) for p, r in zip(pictures, rates, strict=True)]
    y, z = (torch.cat(part) for part in zip(*pairs, strict=True))
    together, decoded = encode_latents(codec.prior, y, z, rates)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for i, rate in enumerate(rates):
                alone, _ = encode_latents(codec.prior, y[i : i + 1], z[i : i + 1], [rate])
                assert alone == [together[i]]
            assert torch.equal(decode_latents(codec.prior, together, rates, *y.shape[2:]), decoded)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kernel", ["float32", "int64"])
def test_other_kernels_decode_the_same_latent(codec: PhotoCodec, photo: Image.Image, kernel: Kernel) -> None:
    from safetensors.torch import load_file

    tensors = load_file(latent_weights(DEFAULT_LATENT))
    other = ExactPrior(prior_tensors(tensors), codec.prior.config, kernel)
    y, z = latents(codec, photo, 150)
    strings, expected = encode_latents(codec.prior, y, z, [150])
    assert torch.equal(decode_latents(other, strings, [150], *y.shape[2:]), expected)


def test_an_independent_reader_finds_the_same_integers(codec: PhotoCodec, photos: list[Image.Image]) -> None:
    reader = Reader(latent_weights(DEFAULT_LATENT))
    for photo, rate in zip(photos, (10, 90, 170, 250), strict=True):
        small = photo.resize((photo.width // 2, photo.height // 2 - 5))
        y, z = latents(codec, small, rate)
        strings, expected = encode_latents(codec.prior, y, z, [rate])
        header = Header(Profile.BASE, small.width, small.height, codec.model)
        found = reader.latent(serialise(Picogram(header, bytes([rate]) + strings[0])))
        assert np.array_equal(found, (expected[0].permute(1, 2, 0) * 256).long().numpy())


def test_integer_prior_costs_at_most_one_percent_over_float(
    codec: PhotoCodec, photos: list[Image.Image]
) -> None:
    """Same tables for both: the float networks' parameters against the integer networks' parameters."""
    exact = floating = 0.0
    net = _float_prior(codec)
    for photo in photos:
        for rate in (30, 110, 190):
            y, z = latents(codec, photo, rate)
            exact += 8 * len(encode_latents(codec.prior, y, z, [rate])[0][0])
            position = torch.tensor([rate / 255])
            with torch.inference_mode():
                padded = torch.nn.functional.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4))
                floating += float(net(padded, position, noisy=False)[1])
    assert exact <= 1.01 * floating


def _float_prior(codec: PhotoCodec) -> torch.nn.Module:
    """The float networks with the integer weights put back on their grid: what an ideal float coder would use."""
    from safetensors.torch import load_file

    from picogram.latent.prior import Prior

    net = Prior(codec.prior.config).eval()
    state = net.state_dict()
    for name, value in load_file(latent_weights(DEFAULT_LATENT)).items():
        short = name.removeprefix("prior.")
        if short.endswith(".weight") and name.startswith("prior."):
            base = short.removesuffix(".weight")
            shift = int(codec.prior.layers[base].shift)
            out, taps = state[short].shape[0], state[short].shape[2:]
            rows = value.double().reshape(out, *taps, -1).permute(0, 3, 1, 2)
            state[short] = (rows * 2.0**-shift).float()
            state[f"{base}.bias"] = (codec.prior.layers[base].bias.double() * 2.0 ** -(shift + 8)).float()
    for name, table in codec.prior.anchors.items():
        state[name] = table.float() / 256
    for name in ("hyper_in", "hyper_mid", "hyper_out"):
        for part in ("weight", "bias"):
            state[f"{name}.{part}"] = getattr(getattr(codec.net.prior, name), part)
    net.load_state_dict(state)
    return net


def test_estimates_are_within_one_percent_or_three_bytes(
    codec: PhotoCodec, photos: list[Image.Image]
) -> None:
    for photo in photos:
        for rate in (0, 60, 140, 255):
            y, z = latents(codec, photo, rate)
            size = len(encode_latents(codec.prior, y, z, [rate])[0][0])
            assert abs(estimate_bits(codec.prior, y, z, rate) / 8 - size) <= max(3, size / 100)


@pytest.mark.parametrize(
    "config",
    [
        TransformConfig(),
        TransformConfig(trunk="dense", trunk_width=8, trunk_blocks=3),
        TransformConfig(trunk="depthwise", trunk_width=8, trunk_blocks=5),
    ],
)
def test_tiles_reach_just_as_far_as_the_synthesis(config: TransformConfig) -> None:
    """Change one position and see how far the change travels."""
    torch.manual_seed(0)
    net, rate = Synthesis(config).double(), torch.tensor([0.5], dtype=torch.float64)
    with torch.inference_mode():
        for parameter in net.parameters():
            parameter.uniform_(0.01, 0.1)
        y = torch.zeros(1, 128, 1, 100, dtype=torch.float64)
        base = net(y, rate)
        y[..., 50] = 5
        moved = (net(y, rate) != base).any(1).any(1)[0].nonzero().flatten()
    for seen in (int(moved.max()) // 16 - 50, 50 - int(moved.min()) // 16):
        assert (
            config.reach - 3 <= seen <= config.reach
        )  # the last bits of a float fade before they get all the way


def test_tiles_reach_at_least_as_far_as_the_analysis(codec: PhotoCodec) -> None:
    rate = torch.tensor([0.5])
    with torch.inference_mode():
        x = torch.full((1, 3, 16, 640), 0.5)
        before = codec.net.analysis(x, rate)
        x[..., 320:336] = 1
        moved = (codec.net.analysis(x, rate) != before).any(1).any(1)[0].nonzero().flatten()
    # features reach 8, the rate-dependent part runs untiled
    assert int(moved.max()) - 20 <= ANALYSIS_HALO + 5
    assert 20 - int(moved.min()) <= ANALYSIS_HALO + 5


@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_weights_say_what_trunk_they_have(kind: str) -> None:
    config = TransformConfig(trunk=kind, trunk_width=24, trunk_blocks=3)
    tensors = {f"synthesis.{k}": v for k, v in Synthesis(config).state_dict().items()}
    assert TransformConfig.of(tensors) == config
    tensors = {f"synthesis.{k}": v for k, v in Synthesis(TransformConfig()).state_dict().items()}
    assert TransformConfig.of(tensors) == TransformConfig()


def test_tiled_and_whole_pictures_agree(
    codec: PhotoCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = np.asarray(photo.resize((720, 560)))
    whole = codec.section(codec.analyse(large), 120)
    picture = codec.decode(whole, 720, 560)
    monkeypatch.setattr(codec_module, "tiles", lambda h, w, halo: tiling.tiles(h, w, halo, tile=5))
    tiled = codec.section(codec.analyse(large), 120)
    assert abs(len(tiled) - len(whole)) <= 3
    again = codec.decode(whole, 720, 560)
    assert int(np.abs(again.astype(int) - picture.astype(int)).max()) <= 1


def test_tiles_cover_every_position_once() -> None:
    for height, width, tile in ((1, 1, 5), (7, 90, 5), (40, 40, 8), (200, 3, 16)):
        count = np.zeros((height, width), int)
        for row, col in tiling.tiles(height, width, 2, tile):
            count[row.keep, col.keep] += 1
            assert row.keep.stop - row.keep.start == row.inner.stop - row.inner.start
        assert (count == 1).all()


def test_damaged_latents_are_corrupt_or_decode_to_a_picture_of_the_right_size(codec: PhotoCodec) -> None:
    section = codec.section(codec.analyse(np.asarray(synthetic(1, 64, 48))), 200)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(section)
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        with contextlib.suppress(CorruptBitstream):
            assert codec.decode(bytes(damaged[: rng.integers(1, len(damaged))]), 64, 48).shape == (48, 64, 3)


def test_an_empty_latent_is_corrupt(codec: PhotoCodec) -> None:
    with pytest.raises(CorruptBitstream):
        codec.decode(b"", 64, 48)


def test_training_likelihood_sums_to_one() -> None:
    for index in (0.0, 5.0, 20.0, 40.0, 63.0):
        values = torch.arange(-2000, 2001).double()
        total = (2.0 ** -code_length(values, torch.full_like(values, index))).sum()
        assert float(total) == pytest.approx(1, abs=1e-4)
        assert float(scale_of_index(torch.tensor(index))) > 0
