# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The text adapter: silent when fresh, blind to padding, the same in tiles, and heard once it has learnt to speak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import synthetic
from torch import Tensor, nn

from picogram.latent import codec as codec_module
from picogram.latent import tiling
from picogram.latent.codec import PhotoCodec, load_codec
from picogram.latent.guide import AdapterConfig, CrossAttention, Guide, TextAdapter
from picogram.latent.latent_codec import LatentCodec

CONFIG = AdapterConfig(text_width=24)


def guide(*lengths: int, seed: int = 1, padding: int = 0) -> Guide:
    """Random states of captions of that many tokens."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    states = torch.randn(len(lengths), longest, CONFIG.text_width, generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    if padding:
        noise = torch.randn(len(lengths), padding, CONFIG.text_width, generator=generator)
        states = torch.cat([states, 100 * noise], 1)
        mask = torch.cat([mask, torch.zeros(len(lengths), padding, dtype=torch.bool)], 1)
    return Guide(states, mask)


def outspoken(model: LatentCodec) -> LatentCodec:
    """As if trained: the last layers of the adapter are no longer zero."""
    assert model.adapter is not None
    torch.manual_seed(5)
    for part in (model.adapter.fine, model.adapter.listen, model.adapter.coarse):
        nn.init.normal_(part.out.weight, std=0.05)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def model() -> LatentCodec:
    torch.manual_seed(0)
    made = LatentCodec(adapter=CONFIG)
    nn.init.normal_(made.analysis.head.weight, std=0.02)
    for block in made.analysis.fine:
        nn.init.normal_(block.get_parameter("last.weight"), std=0.02)
    return made


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(3))


RATE = torch.tensor([0.1, 0.8])


def test_a_fresh_adapter_leaves_the_latent_as_it_is_bit_for_bit(model: LatentCodec, pixels: Tensor) -> None:
    plain = model.analysis(pixels, RATE)
    for words in (None, guide(3, 7)):
        assert torch.equal(model.analyse(pixels, RATE, words), plain)


def test_gradients_reach_every_part_of_a_trained_adapter(pixels: Tensor) -> None:
    made = outspoken(LatentCodec(adapter=CONFIG))
    nn.init.normal_(made.analysis.head.weight, std=0.02)
    assert made.adapter is not None
    made.adapter.requires_grad_(True)
    made.analyse(pixels, RATE, guide(3, 7)).square().sum().backward()
    silent = [n for n, p in made.adapter.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_words_change_the_latent_and_no_words_do_too(model: LatentCodec, pixels: Tensor) -> None:
    heard = outspoken(model)
    some, others = (heard.analyse(pixels, RATE, guide(3, 7, seed=s)) for s in (1, 2))
    none = heard.analyse(pixels, RATE)
    assert not torch.allclose(some, others, atol=1e-4)
    assert not torch.allclose(some, none, atol=1e-4)


def test_padding_is_never_looked_at(model: LatentCodec, pixels: Tensor) -> None:
    heard = outspoken(model)
    short, padded = (heard.analyse(pixels, RATE, guide(3, 7, padding=p)) for p in (0, 9))
    torch.testing.assert_close(short, padded)


def test_an_empty_row_is_no_caption(model: LatentCodec, pixels: Tensor) -> None:
    heard = outspoken(model)
    words = guide(3, 7)
    silenced = Guide(words.states, words.mask & torch.tensor([[False], [True]]))
    mixed, none = heard.analyse(pixels, RATE, silenced), heard.analyse(pixels, RATE)
    torch.testing.assert_close(mixed[0], none[0])
    assert not torch.allclose(mixed[1], none[1], atol=1e-4)


def test_the_text_stream_learns_of_the_picture(pixels: Tensor) -> None:
    adapter = TextAdapter(CONFIG)
    nn.init.normal_(adapter.listen.out.weight, std=0.1)
    tokens = adapter.read(guide(4, 4))
    seen = adapter.summary(torch.rand(2, CONFIG.image_width, 8, 16))
    assert seen.shape == (2, CONFIG.summary**2, CONFIG.image_width)
    heard = adapter.heard(tokens, seen)
    assert heard.values.shape == tokens.values.shape
    assert not torch.allclose(heard.values, tokens.values, atol=1e-4)


def test_attention_returns_what_is_to_be_added_and_starts_with_nothing() -> None:
    attention = CrossAttention(8, 12, 16, 4, 6)
    assert not attention(torch.rand(2, 5, 8), torch.rand(2, 3, 12)).any()
    nn.init.normal_(attention.out.weight)
    first, second = (attention(torch.rand(2, 5, 8), c) for c in (torch.rand(2, 3, 12), torch.rand(2, 3, 12)))
    assert first.shape == (2, 5, 6)
    assert not torch.allclose(first, second)


def test_the_adapter_has_at_most_a_million_and_a_half_parameters() -> None:
    assert sum(p.numel() for p in TextAdapter().parameters()) <= 1_500_000


@pytest.fixture(scope="module")
def guided_codec() -> PhotoCodec:
    """The shipped model with an outspoken adapter in place of its own."""
    shipped = load_codec()
    codec = PhotoCodec.__new__(PhotoCodec)
    codec.model, codec.prior, codec.placement = shipped.model, shipped.prior, shipped.placement
    codec.net = LatentCodec(adapter=CONFIG)
    trained = shipped.net.state_dict().items()
    plain = {name: value for name, value in trained if not name.startswith("adapter.")}
    codec.net.load_state_dict(codec.net.state_dict() | plain)
    outspoken(codec.net)
    return codec


def test_large_pictures_go_through_in_tiles_with_words(
    guided_codec: PhotoCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, words = np.asarray(synthetic(4, 400, 260)), guide(5)
    whole = guided_codec.analyse(large, words)
    monkeypatch.setattr(codec_module, "tiles", lambda h, w, halo: tiling.tiles(h, w, halo, tile=6))
    tiled = guided_codec.analyse(large, words)
    torch.testing.assert_close(tiled.linear, whole.linear, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tiled.features, whole.features, atol=1e-3, rtol=1e-3)
    silent = guided_codec.analyse(large)
    assert not torch.allclose(silent.features, whole.features, atol=1e-2)


def test_any_decoder_reads_what_words_shaped(guided_codec: PhotoCodec) -> None:
    picture = np.asarray(synthetic(2, 130, 100))
    section = guided_codec.section(guided_codec.analyse(picture, guide(5)), 90)
    assert load_codec().decode(section, 130, 100).shape == (100, 130, 3)
