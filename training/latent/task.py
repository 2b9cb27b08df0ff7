# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How a latent model learns: bits per pixel + lambda(rate) x distortion, per sample, at rates drawn anew in each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from picogram.latent.guide import Guide
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import PriorConfig
from picogram.latent.transforms import TransformConfig, klt_of_patches
from training.devices import autocast, placed
from training.engine import TrainingTask, weights_of
from training.frozen import shipped_latent
from training.latent.losses import Distortion, LatentLossWeights
from training.phases import Phase
from training.photos import PhotoBank

SPEEDS = {
    "index_base": 100.0,
    "hyper_index": 100.0,
    "hyper_mean": 20.0,
    "log_gain": 10.0,
    "table": 5.0,
    "rate_shift": 5.0,
}
"""Learning rate multipliers of tables: Adam moves every parameter by about its rate a step, whatever its unit, and
scale indices count to 63."""


@dataclass(frozen=True)
class LatentSettings:
    """Of a phase, beside the engine's.

    ``lambda_low`` to ``lambda_high``: log-linear in the rate 0..1. ``balance``: each sample's loss is divided by lambda
    to this power, so that coarse rates are heard beside fine ones. ``low_rates``: drawn rates are raised to this power;
    above 1 favours coarse ones. ``noisy``: bits are those of noisy latents, else of rounded ones. ``rate_only``: the
    prior alone learns, from rounded latents, which is what files hold. ``drop``: share of samples of which one to three
    last slices are not coded.
    """

    crop: int = 192
    natural: float = 0.6
    lambda_low: float = 0.006
    lambda_high: float = 0.8
    balance: float = 0.5
    low_rates: float = 1.0
    noisy: bool = True
    rate_only: bool = False
    drop: float = 0.0
    loss: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What one step learns from: pictures ``[B, 3, H, W] 0..1``, and perhaps their captions."""

    pixels: Tensor
    guide: Guide | None = None


class LatentTask(TrainingTask):
    """A latent model on photographs."""

    model: LatentCodec

    def __init__(self, model: LatentCodec, photos: PhotoBank, metrics: Path, compiled: bool = False) -> None:
        """``metrics``: folder with the weights of LPIPS and DISTS; ``compiled``: the synthesis' blocks, on CUDA."""
        super().__init__(placed(model, photos.device), photos.rng, photos.device)
        self.photos, self.metrics = photos, metrics
        self.settings, self.distortion = (
            LatentSettings(),
            Distortion(metrics, LatentLossWeights(lpips_alex=0)),
        )
        if compiled:
            for module in (model.synthesis.trunk, model.synthesis.middle, model.synthesis.fine):
                if module is not None:
                    module.compile(dynamic=False)

    def groups(self) -> list[dict[str, Any]]:
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            groups.setdefault(SPEEDS.get(name.rsplit(".", 1)[-1], 1.0), []).append(parameter)
        return [{"params": parameters, "speed": speed} for speed, parameters in groups.items()]

    def check(self, phase: Phase) -> None:
        self.check_settings(LatentSettings(**phase.settings))

    def check_settings(self, settings: LatentSettings) -> None:
        """Raises TypeError or ValueError for what cannot be."""
        if settings.crop % 64:
            raise ValueError("the sides of crops are multiples of 64")
        LatentLossWeights(**settings.loss)  # type: ignore[arg-type]

    def begin(self, phase: Phase) -> None:
        self.settings = LatentSettings(**phase.settings)
        weights = LatentLossWeights(**self.settings.loss)  # type: ignore[arg-type]
        self.distortion = placed(Distortion(self.metrics, weights), self.device)

    def sample(self, phase: Phase) -> Sample:
        """A batch, on the device."""
        crop = self.settings.crop
        return Sample(self.photos.windows(phase.batch, crop, self.settings.natural).originals)

    def further(self, sample: Sample, decoded: Tensor) -> tuple[Tensor | float, dict[str, Tensor]]:
        """More distortion ``[B]``, weighted, and its unweighted parts for the log."""
        return 0.0, {}

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        settings, sample = self.settings, self.sample(phase)
        x = sample.pixels.contiguous(memory_format=torch.channels_last)
        count = len(x)
        spread = torch.arange(count, device=self.device)
        rate = ((torch.rand(count, device=self.device) + spread) / count).pow(settings.low_rates)
        weight = settings.lambda_low * (settings.lambda_high / settings.lambda_low) ** rate
        with autocast(self.device):
            if settings.rate_only:
                bits, distortion, parts = self._rate_alone(x, rate, sample.guide), 0.0, {}
            else:
                y_hat, bits = self.model.latents(x, rate, settings.noisy, sample.guide, self._kept(count))
                decoded = self.model.synthesis(y_hat, rate).float()
                distortion, parts = self.distortion(x, decoded)
                more, others = self.further(sample, decoded)
                distortion, parts = distortion + more, parts | others
        bpp = bits / (x.shape[2] * x.shape[3])
        loss = ((bpp + weight * distortion) / weight**settings.balance).mean()
        logged = {"bpp": bpp.mean(), "bpp_low": bpp[: count // 2].mean()}
        return {"loss": loss} | logged | {k: v.detach().mean() for k, v in parts.items()}

    def _rate_alone(self, x: Tensor, rate: Tensor, guide: Guide | None) -> Tensor:
        with torch.no_grad():
            y = self.model.analyse(x, rate, guide).float() * self.model.gain(rate)
        bits: Tensor = self.model.prior(y, rate, noisy=False)[1]
        return bits

    def _kept(self, count: int) -> Tensor | None:
        """How many slices of each sample are coded, or None: all."""
        if not self.settings.drop:
            return None
        slices = len(self.model.prior.config.slices)
        dropped = torch.randint(1, slices, (count,), device=self.device)
        chosen = torch.rand(count, device=self.device) < self.settings.drop
        return slices - dropped * chosen


def empty(config: dict[str, Any]) -> LatentCodec:
    """A model as a recipe's ``model`` describes it, with random weights."""
    if unknown := sorted(set(config) - {"transforms", "prior"}):
        raise SystemExit(f"a recipe's model has no {unknown[0]!r}, only transforms and prior")
    prior = PriorConfig(**config.get("prior", {}))
    return LatentCodec(TransformConfig(**config.get("transforms", {})), prior)


def made(config: dict[str, Any], start: Path | None, photos: PhotoBank) -> LatentCodec:
    """``empty`` with weights.

    ``start``: a shipped model, a checkpoint, or averaged weights; a trunk that they lack starts at zero effect, and what
    the model lacks (an adapter) is left out. None: from a linear transform of the photographs.
    """
    model = empty(config)
    if start is None:
        patches = torch.cat([photos.windows(64, 16).originals for _ in range(400)])
        model.start_from_klt(*klt_of_patches(patches.cpu(), model.log_gain.shape[1]))
        return model
    own = model.state_dict()
    weights = weights_of(start) if not is_shipped(start) else shipped_latent(start)[0].state_dict()
    known = {k: v for k, v in weights.items() if k in own}
    if lacking := [k for k in own if k not in known and not k.startswith("synthesis.trunk.")]:
        raise SystemExit(f"{start} lacks {lacking[0]} and {len(lacking) - 1} more tensors")
    model.load_state_dict(own | known)
    return model


def is_shipped(path: Path) -> bool:
    """Whether weights are as shipped: int8, with an integer prior."""
    if path.suffix != ".safetensors":
        return False
    with safe_open(path, "pt") as tensors:
        return "prior.table_reach" in set(tensors.keys())
