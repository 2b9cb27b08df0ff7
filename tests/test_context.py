# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from picogram.exact import split_linear
from picogram.latent.codec import load_codec
from picogram.models import DEFAULT_LATENT
from picogram.text.lm.context import GRID, SCALE, PictureContext
from picogram.text.lm.model import RESIDUAL_BITS
from training.words.export_text import pack_context
from training.words.extract_latents import pooled
from training.words.projectors import LatentProjector

WIDTH = 40


@pytest.fixture(scope="module")
def projector() -> LatentProjector:
    torch.manual_seed(3)
    net = LatentProjector(256, WIDTH, hidden=32)
    net.offset.uniform_(-0.5, 0.5)
    net.spread.uniform_(0.5, 2)
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def tensors(projector: LatentProjector) -> dict[str, Tensor]:
    return {
        k.removeprefix("context."): v for k, v in pack_context(projector.state_dict(), DEFAULT_LATENT).items()
    }


def steps(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(-900, 900, (128, height, width), generator=generator).double() / 256


@pytest.mark.parametrize("size", [(32, 48), (14, 14), (9, 5), (1, 1)])
def test_integers_repeat_the_trained_network(
    projector: LatentProjector, tensors: dict[str, Tensor], size: tuple[int, int]
) -> None:
    rate = 77
    gain = load_codec().net.gain(torch.tensor([rate / 255]))
    expected = projector(pooled(steps(*size).float()[None] / gain))[0] * 2.0**RESIDUAL_BITS
    found = PictureContext(tensors)(steps(*size), rate)
    assert found.shape == (5, WIDTH)
    assert torch.equal(found, found.round())
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("kernel", ["int8", "float32"])
def test_every_kernel_finds_the_same_integers(tensors: dict[str, Tensor], kernel: str) -> None:
    if kernel == "int8" and not split_linear.int8_is_exact():
        pytest.skip("int8 products are not exact on this machine")
    reference = PictureContext(tensors, "float64")(steps(24, 16), 3)
    assert torch.equal(PictureContext(tensors, kernel)(steps(24, 16), 3), reference)  # type: ignore[arg-type]


def test_extreme_latents_stay_finite(tensors: dict[str, Tensor]) -> None:
    wild = torch.full((128, 16, 512), 65536.0, dtype=torch.float64)
    found = PictureContext(tensors)(wild, 0)
    assert bool(found.isfinite().all())
    assert SCALE == 2**-3
    assert GRID == 8
