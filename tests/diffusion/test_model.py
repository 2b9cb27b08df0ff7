# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion network and its steps: what a seed, a caption, a size and a guide do, on small random weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_diffusion import SMALL, WORD_WIDTH, small_net, small_table
from torch import Tensor

from picogram.diffusion.bridge import NOISE, Condition, draw_noise, euler, mix, times
from picogram.diffusion.conditioning import MAX_WORDS, EncodedText, WordTable, no_words
from picogram.diffusion.diffusion_net import DiffusionNet
from picogram.diffusion.stages import MAX_STEPS
from picogram.latent.transforms import Synthesis, TransformConfig


@pytest.fixture(scope="module")
def net() -> DiffusionNet:
    return small_net()


@pytest.fixture(scope="module")
def table() -> WordTable:
    return small_table()


def condition(count: int = 2, height: int = 64, width: int = 96) -> Condition:
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(count, 4, -(-height // 16), -(-width // 16), generator=generator)
    return Condition(
        torch.rand(count, 3, height, width, generator=generator), latent, torch.full((count,), 0.3)
    )


def empty(net: DiffusionNet, count: int = 2) -> EncodedText:
    return net.encode(no_words(count, WORD_WIDTH))


def test_the_shipped_size_fits_its_budget() -> None:
    with torch.device("meta"):
        count = sum(v.numel() for v in DiffusionNet().state_dict().values())
    assert count <= 12_000_000
    assert 2 * count <= 24_000_000


def test_an_untrained_network_is_its_trunk_on_the_small_base_picture() -> None:
    torch.manual_seed(5)
    fresh, c = DiffusionNet(SMALL).eval(), condition()
    x = c.base + 0.1 * torch.randn_like(c.base)
    out = fresh(x, c.base, c.latent, c.rate, torch.zeros(2), empty(fresh))
    low = F.avg_pool2d(c.base, 4)
    none = torch.zeros(2, SMALL.blocks, 2, SMALL.width)
    features = fresh.trunk.features(low, torch.zeros(2, SMALL.width, *low.shape[2:]), none)
    assert torch.allclose(out, fresh.trunk.picture(features), atol=1e-6)


def test_every_input_reaches_the_picture(net: DiffusionNet, table: WordTable) -> None:
    c = condition()
    given = {
        "x": c.base + 0.1,
        "base": c.base,
        "latent": c.latent,
        "rate": c.rate,
        "time": torch.zeros(2),
        "text": net.encode(table([[3, 4]] * 2)),
    }
    plain = net(**given)
    others = {
        "x": c.base - 0.1,
        "base": c.base.flip(3),
        "latent": -c.latent,
        "rate": c.rate + 0.5,
        "time": torch.full((2,), 0.5),
        "text": net.encode(table([[5, 6]] * 2)),
    }
    for name, other in others.items():
        assert float((net(**given | {name: other}) - plain).abs().max()) > 1e-4, name


def test_the_stem_starts_as_the_codecs_synthesis() -> None:
    config = TransformConfig(
        latent_channels=4, decoder_widths=(16, 8, 8), decoder_blocks=(1, 1, 1), rate_anchors=8
    )
    torch.manual_seed(4)
    synthesis = Synthesis(config)
    with torch.no_grad():
        for parameter in synthesis.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    fresh, c = DiffusionNet(SMALL), condition()
    fresh.start_from_synthesis(synthesis)
    features = fresh.stem(c.latent, c.rate, empty(fresh), None)
    shown = synthesis.linear(c.latent) + F.pixel_shuffle(synthesis.head(features), 4) + 0.5
    assert torch.allclose(shown, synthesis(c.latent, c.rate), atol=1e-5)


def test_steps_that_know_the_original_follow_the_path_to_it() -> None:
    c = condition()
    original, noise = c.base.flip(3), draw_noise([5, 6], 64, 96)

    def at(time: float) -> Tensor:
        return mix(c.base, noise, original, torch.full((2,), time))

    assert torch.allclose(at(0.0), c.base + NOISE * noise)
    assert torch.allclose(euler(at(0.25), original, 0.25, 0.5), at(0.5), atol=1e-6)
    assert torch.allclose(euler(at(0.5), original, 0.5, 1.0), original, atol=1e-6)


def test_times_reach_from_the_start_to_one() -> None:
    assert times(4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert times(2, 0.5) == [0.5, 0.75, 1.0]


@pytest.mark.parametrize(("steps", "start"), [(0, 0.0), (MAX_STEPS + 1, 0.0), (2, 1.0), (2, -0.1)])
def test_steps_and_starts_out_of_range_are_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match="steps must be"):
        times(steps, start)


def test_aligned_sides_are_left_alone() -> None:
    c = condition(1, 64, 96)
    assert torch.equal(c.aligned().base, c.base)
    assert torch.equal(c.aligned().latent, c.latent)


def test_neighbours_in_a_batch_do_not_change_a_caption(net: DiffusionNet, table: WordTable) -> None:
    together = net.encode(table([[3, 4], [5, 6, 7, 8, 9]]))
    alone = net.encode(table([[3, 4]]))
    assert torch.allclose(together.tokens[:1, :3], alone.tokens, atol=1e-5)
    assert together.mask.tolist()[0] == [True, True, True, False, False, False]


def test_long_captions_are_cut(table: WordTable) -> None:
    assert table([[1] * 5000]).mask.shape == (1, MAX_WORDS)


def test_a_guide_sees_the_attention_map_and_bends_it(net: DiffusionNet, table: WordTable) -> None:
    c = condition()
    text = net.encode(table([[3, 4]] * 2))
    shapes = []

    def only_first(logits: Tensor) -> Tensor:
        shapes.append(tuple(logits.shape))
        bent = logits.clone()
        bent[..., 1:] = -torch.inf
        return bent

    x, now = c.base, torch.zeros(2)
    plain = net(x, c.base, c.latent, c.rate, now, text)
    bent = net(x, c.base, c.latent, c.rate, now, text, only_first)
    assert shapes == [(2, 4, 4, 6, 3)]
    assert not torch.allclose(plain, bent)
