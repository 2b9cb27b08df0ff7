# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Steps on a device that is not the processor: all that they touch lies there, and nothing asks it for a number.

The device is PyTorch's "meta", which has shapes but no values: asking it for one fails, as does ``nonzero``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import joint_parts
import numpy as np
import pytest
import torch
from diffusion_runs import CONFIG, photographs
from photo_folders import caption_states, photo_folder
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from picogram.diffusion.conditioning import WordTable
from picogram.diffusion.diffusion_net import DiffusionConfig, DiffusionNet
from picogram.latent.guide import AdapterConfig
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.transforms import TransformConfig
from picogram.models import DEFAULT_LATENT, latent_weights
from training.diffusion.lent import random_judges
from training.diffusion.task import DiffusionTask
from training.engine import TrainingTask
from training.frozen import FrozenCodec
from training.latent.task import LatentTask
from training.phases import Phase
from training.photos import PhotoBank
from training.taco.data import Captioned
from training.taco.pack import HEIGHT, WIDTH
from training.taco.task import TacoTask

META = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
"""The only operations that may see two devices."""
SMALL = 256
"""Elements that a step may handle on the processor, such as numbers of captions, before they are moved."""


class OneDevice(TorchDispatchMode):
    """Fails where an operation sees tensors of two devices, or computes with pictures on the processor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen = [v for v in tree_leaves((args, kwargs or {})) if isinstance(v, Tensor)]
        devices = {v.device.type for v in seen if v.dim() or v.device.type != "cpu"}
        if func not in MOVES:
            assert len(devices) < 2, f"{func} sees tensors on {devices}"
            if devices == {"cpu"}:
                largest = max(v.numel() for v in seen)
                assert largest <= SMALL, f"{func} of {largest} elements on the processor"
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know the device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random networks of the metrics' shapes."""
    folder = tmp_path_factory.mktemp("metrics")
    random_judges(folder)
    weights = {name: torch.rand(1, 3 + 64 + 128 + 256 + 512 + 512) for name in ("alpha", "beta")}
    torch.save(weights, folder / "dists.pt")
    return folder


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("windows"))


def bank(folder: Path) -> PhotoBank:
    return PhotoBank(folder, META, np.random.default_rng(1))


def stepped_twice(task: TrainingTask, phase: Phase) -> list[dict[str, Tensor]]:
    """Two steps but for the optimiser, watched; what they report."""
    found = []
    task.begin(phase)
    with OneDevice():
        for _ in range(2):
            parts = task.loss(phase)
            parts["loss"].backward()
            parts |= task.stepped()
            assert {v.device for v in parts.values()} == {META}
            found.append(parts)
    with_gradient = [p for p in task.model.parameters() if p.grad is not None]
    assert {p.grad.device for p in with_gradient if p.grad is not None} == {META}
    return found


LATENT_LOSS = {"mse": 30, "lpips_alex": 2.0, "lpips_vgg": 0.5, "dists": 2.5, "vgg_crop": 32, "vgg_share": 0.5}


@pytest.mark.parametrize("more", [{}, {"rate_only": True}, {"drop": 0.5, "noisy": False}])
def test_a_latent_step_stays_on_its_device(windows: Path, metrics: Path, more: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = LatentCodec(TransformConfig(trunk_blocks=1))
    settings = {"crop": 64, "loss": LATENT_LOSS} | more
    found = stepped_twice(
        LatentTask(model, bank(windows), metrics), Phase(batch=2, steps=2, settings=settings)
    )
    assert ("dists" in found[0]) == ("rate_only" not in more)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    pixels = np.random.default_rng(1).integers(0, 255, (3, HEIGHT, WIDTH, 3), np.uint8)
    (folder / "photos.u8").write_bytes(pixels.tobytes())
    (folder / "photos.json").write_text('{"train": 3, "numbers": [0, 1, 2]}')
    return folder


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_taco_step_stays_on_its_device(
    windows: Path, metrics: Path, captioned: Path, tmp_path: Path, share: float
) -> None:
    heads = joint_parts.heads().eval().requires_grad_(False)
    width = joint_parts.CONFIG.text_width
    photos = bank(windows)
    said = Captioned(captioned, caption_states(tmp_path, 3, width), heads, META, photos.rng)
    model = LatentCodec(adapter=AdapterConfig(text_width=width))
    task = TacoTask(model, photos, said, joint_parts.Colours().to(META), metrics)
    settings = {"captioned": share, "crop": 64, "loss": LATENT_LOSS | {"lpips_alex": 0, "dists": 0}}
    phase = Phase(batch=2, steps=2, settings=settings)
    found = stepped_twice(task, phase)
    assert "drift" in found[0]
    assert ("contrast" in found[0]) == bool(share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("diffusion"))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_diffusion_step_stays_on_its_device(folder: Path, metrics: Path, share: float) -> None:
    torch.manual_seed(1)
    photos, codec = bank(folder / "photos"), FrozenCodec(latent_weights(DEFAULT_LATENT))
    sizes: dict[str, Any] = CONFIG
    net = DiffusionNet(DiffusionConfig(blocks=2, **sizes))
    table = WordTable(load_file(folder / "photos" / "words.safetensors"))
    features: Any = joint_parts.Colours()
    task = DiffusionTask(net, codec, photos, table, metrics, features)
    loss = {"smooth": 20, "semantic": 0.1, "moments": 0.5, "adversarial": 0.12}
    sizes = {"vgg_crop": 32, "feature_crop": 64}
    settings = {"crop": 64, "captioned": share, "later": 0.5, "loss": loss | sizes}
    found = stepped_twice(task, Phase(batch=2, steps=2, settings=settings))
    assert {"charbonnier", "lpips", "lpips_vgg", "dists", "semantic", "moments", "opponent"} <= set(found[0])
    assert task.ratio.device == META


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.zeros(3) + torch.zeros(3, device=META),
        lambda: float(torch.zeros((), device=META)),
        lambda: torch.zeros(3, device=META).nonzero(),
        lambda: torch.zeros(3, 64, 64).square(),
    ],
)
def test_what_is_watched_for_is_found(wrong: Callable[[], object]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OneDevice():
        wrong()
