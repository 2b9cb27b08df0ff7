# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Codec and denoiser on a device that is not the processor: networks run there, entropy coding stays here.

The device is PyTorch's "meta", which has shapes but no values. Where values come back from it, zeros do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import synthetic
from safetensors.torch import load_file
from small_diffusion import base, small_net, small_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from picogram.diffusion.denoiser import Restoration
from picogram.diffusion.embedded import EmbeddedDenoiser, load_denoiser
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Stage
from picogram.errors import UsageError
from picogram.latent.codec import PhotoCodec, load_codec
from picogram.latent.focus import Focus
from picogram.latent.guide import Guide
from picogram.models import DEFAULT_LATENT, latent_weights
from picogram.processor import Placement

META = torch.device("meta")
ATEN = torch.ops.aten
MOVES = {ATEN.to, ATEN._to_copy, ATEN.copy_}
"""The only operations that may see two devices."""
NETWORKS = {ATEN.conv2d, ATEN.convolution, ATEN.convolution_backward, ATEN.linear, ATEN.addmm}
VALUES = {ATEN.item, ATEN.is_nonzero, ATEN._local_scalar_dense}


class Elsewhere(TorchDispatchMode):
    """Fails where an operation sees tensors of two devices, or a network runs on the processor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        seen = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        devices = {v.device.type for v in seen if v.dim() or v.device.type != "cpu"}
        what = func.overloadpacket
        if what in MOVES:
            to = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.device)]
            back = devices == {"meta"} and to == [torch.device("cpu")]
            return torch.zeros(seen[0].shape, dtype=seen[0].dtype) if back else func(*args, **kwargs)
        assert len(devices) < 2, f"{func} sees tensors on {devices}"
        if what in NETWORKS:
            assert devices == {"meta"}, f"{func} runs on the processor"
            self.ran += 1
        if what in VALUES and devices == {"meta"}:
            return seen[0].dtype == torch.bool or 1.0
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def codec() -> PhotoCodec:
    return PhotoCodec(load_file(latent_weights(DEFAULT_LATENT)), DEFAULT_LATENT, META)


def focus() -> Focus:
    return Focus.of(np.pad(np.ones((2, 2), np.float32), 2))


@pytest.mark.parametrize("spoken", [False, True])
def test_a_picture_is_coded_on_the_codecs_device(codec: PhotoCodec, spoken: bool) -> None:
    picture = np.asarray(synthetic(1, 96, 80))
    said = Guide(torch.ones(1, 3, 576), torch.ones(1, 3, dtype=torch.bool)) if spoken else None
    with Elsewhere() as watched:
        analysed = codec.analyse(picture, said, focus() if spoken else None)
        assert {analysed.linear.device, analysed.features.device} == {META}
        section = codec.section(analysed, 90)
        assert codec.estimate(analysed, 90) > 0
    assert watched.ran
    assert section[0] == 90


def test_the_search_for_a_better_file_stays_there(codec: PhotoCodec) -> None:
    with Elsewhere() as watched:
        search = codec.refinement(codec.analyse(np.asarray(synthetic(1, 96, 80)), focus=focus()), 90)
        found = search.run(1)
        search.loss(found.y, 0.4, 1.0)
    assert watched.ran
    assert {found.y.device, found.z.device} == {META}


def test_a_file_is_decoded_to_integers_here_and_to_a_picture_there(codec: PhotoCodec) -> None:
    here = load_codec()
    section = here.section(here.analyse(np.asarray(synthetic(1, 96, 80))), 90)
    with Elsewhere() as watched:
        steps, _ = codec.steps(section, 80, 96)
        assert not watched.ran
        latent, rate = codec.latent(section, 80, 96)
        picture = codec.synthesise(latent, rate, 80, 96)
    assert watched.ran
    assert torch.equal(steps, here.steps(section, 80, 96)[0])
    assert latent.device == META
    assert picture.shape == (96, 80, 3)


@pytest.mark.parametrize("prompt", ["", "a boat"])
def test_a_picture_is_restored_on_the_denoisers_device(prompt: str) -> None:
    table = small_table()
    denoiser = EmbeddedDenoiser(
        small_net(), words=lambda texts: table([[ord(c) % 50 for c in text] for text in texts]), device=META
    )
    stages = [Stage(prompt, steps=2, guidance=2.0, start=0.7, seed=4), Stage(prompt, control="previous")]
    with Elsewhere() as watched:
        (picture,) = restore(denoiser, [Restoration(base(), stages)])
    assert watched.ran
    assert isinstance(picture, Tensor)
    assert picture.device.type == "cpu"


def test_models_are_kept_by_device() -> None:
    assert load_codec() is load_codec(DEFAULT_LATENT, "cpu") is load_codec(device=torch.device("cpu"))
    assert load_codec(device=META).device == META
    assert load_codec().device.type == "cpu"
    assert load_denoiser() is load_denoiser(device="cpu")
    assert load_denoiser(device=META).device == META


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_typed_error() -> None:
    for load in (load_codec, load_denoiser, Placement.of):
        with pytest.raises(UsageError, match="there is no GPU cuda:0"):
            load(device="cuda:0")


def test_what_is_watched_for_is_found() -> None:
    with Elsewhere():
        with pytest.raises(AssertionError):
            torch.zeros(3) + torch.zeros(3, device=META)
        with pytest.raises(AssertionError):
            torch.conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
