# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a restored picture is judged by: distances to the original, and an adversary that compares it with its original.

    prediction ─┬─ Charbonnier, LPIPS (alex), detail where the original is flat ────── on everything
                ├─ VGG features of a window of some samples ─┬─ DISTS, LPIPS (vgg)
                │                                            └─ small heads ── real or not, in pairs
                └─ EfficientNet features of a window ─┬─ distance to the original's
                                                      └─ pooled: likelier among originals than among predictions

Heads on frozen features learn in minutes what a discriminator on pixels needs hours for (Sauer et al., Projected GANs,
NeurIPS 2021), and DISTS has computed the features already. They see them normalised over positions, so that contrast and
brightness, the cheapest cues, are hidden, and each prediction beside its own original (the relativistic pairing of
Jolicoeur-Martineau, ICLR 2019). Matching moments of fixed features (Dos Santos et al., ICCV 2019; the kernel is KID's)
pulls the same way and has no opponent that could drift; as it descends the very distance that judges it, a second
network must judge as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from picogram.metrics.perceptual import (
    Dists,
    Lpips,
    dists_distance,
    load_dists,
    load_lpips,
    lpips_distance,
)
from picogram.semantics.features import FeatureNet

FLAT = 0.03
"""Deviation within nine pixels below which a photograph counts as flat; its own grain is half of that."""


@dataclass(frozen=True)
class DiffusionLossWeights:
    """Weights of the terms; ``vgg_share`` of the samples are seen by VGG, in windows of ``vgg_crop`` pixels.

    ``adversarial`` is the size of that term's gradient, as a share of all others' together. Networks of terms without
    weight are not loaded; there is no adversary without ``dists``.
    """

    charbonnier: float = 3.0
    smooth: float = 0.0  # detail where the original has none
    lpips: float = 1.0
    lpips_vgg: float = 0.5
    dists: float = 1.5
    adversarial: float = 0.0
    semantic: float = 0.0  # mean distance of EfficientNet's last features, position by position
    moments: float = 0.0  # gradient of the kernel distance between predictions and originals
    feature_crop: int = 128
    vgg_crop: int = 128
    vgg_share: float = 0.5


@dataclass(frozen=True)
class Judged:
    """Means of the terms, and VGG's features at strides 2, 4 and 8 of the original and of the prediction."""

    parts: dict[str, Tensor]
    real: list[Tensor]
    fake: list[Tensor]


class Distances(nn.Module):
    """The distances to the original."""

    def __init__(
        self, folder: Path, weights: DiffusionLossWeights, features: FeatureNet | None = None
    ) -> None:
        """``folder`` of the LPIPS and DISTS weights; ``features`` is needed by ``semantic`` and ``moments``."""
        super().__init__()
        self.weights = weights
        self.features = features if weights.semantic or weights.moments else None
        self.moments = Moments()
        self.alex: Lpips | None = load_lpips(folder, "alex") if weights.lpips else None
        self.vgg: Dists | None = load_dists(folder, also_lpips=True) if weights.dists else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, x_hat: Tensor) -> Judged:
        """``x, x_hat [B, 3, H, W]``. All but Charbonnier see the prediction clamped: networks are linear far out."""
        weights = self.weights
        parts = {"charbonnier": charbonnier(x - x_hat)}
        if weights.smooth:
            parts["smooth"] = excess(x, x_hat)
        # a tenth of the gradient stays where values are clamped, or they would never come back
        held = x_hat.clamp(0, 1)
        x_hat = held + 0.1 * (x_hat - held)
        if self.alex is not None:
            parts["lpips"] = self.alex(x, x_hat).mean()
        real: list[Tensor] = []
        fake: list[Tensor] = []
        if self.vgg is not None:
            found, real, fake = self._vgg(self.vgg, x, x_hat)
            parts |= found
        if self.features is not None:
            parts |= self._features(self.features, x, x_hat)
        return Judged(parts, real, fake)

    def _features(self, net: FeatureNet, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        a, b = windows([x, x_hat], self.weights.feature_crop)
        with torch.no_grad():
            real = net(a)
        fake = net(b)
        semantic = (real.spatial - fake.spatial).abs().mean()
        return {"semantic": semantic, "moments": self.moments(real.pooled.float(), fake.pooled.float())}

    def _vgg(
        self, vgg: Dists, x: Tensor, x_hat: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        """Both distances of a window of some samples, and the features of the three middle blocks: the first is too
        close to pixels, the last too coarse for such windows."""
        count = max(1, round(len(x) * self.weights.vgg_share))
        if count < len(x):
            chosen = torch.randperm(len(x), device=x.device)[:count]
            x, x_hat = x[chosen], x_hat[chosen]
        a, b = windows([x, x_hat], self.weights.vgg_crop)
        with torch.no_grad():
            real = vgg.features((a - vgg.mean) / vgg.std)
        fake = vgg.features((b - vgg.mean) / vgg.std)
        parts = {"dists": dists_distance([a, *real], [b, *fake], vgg.alpha, vgg.beta).mean()}
        if vgg.heads:
            parts["lpips_vgg"] = lpips_distance(real, fake, vgg.heads).mean()
        return parts, real[1:4], fake[1:4]

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms."""
        return torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()


class Moments:
    """Kernel distance of fresh predictions to the last ``size`` originals, less that to the last predictions."""

    def __init__(self, size: int = 2048) -> None:
        self.size = size
        self.real: Tensor | None = None
        self.fake: Tensor | None = None

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """``[B, D]`` each; the gradient is the kernel inception distance's with respect to ``fake``."""
        loss = fake.sum() * 0
        if self.real is not None and self.fake is not None:
            among, across = (_cubic(fake, bank).mean() for bank in (self.fake, self.real))
            loss = 2 * (among - across)
        # what is no number would stay in the bank long after the step that it spoilt
        news = (new.detach().nan_to_num(0.0, 0.0, 0.0) for new in (real, fake))
        self.real, self.fake = (
            new if bank is None else torch.cat((bank, new))[-self.size :]
            for bank, new in zip((self.real, self.fake), news, strict=True)
        )
        return loss


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return (F.linear(a, b) / a.shape[1] + 1) ** 3


def charbonnier(difference: Tensor) -> Tensor:
    return (difference.square() + 1e-6).sqrt().mean()


def excess(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean size of the prediction's detail where the original is flat: hatching that no feature network minds."""
    side = 9
    spread = (
        F.avg_pool2d(x.square(), side, 1, side // 2) - F.avg_pool2d(x, side, 1, side // 2).square()
    ).mean(1, True)
    flat = torch.exp(-spread.clamp_min(0) / FLAT**2)
    return (flat * (x_hat - F.avg_pool2d(x_hat, side, 1, side // 2)).abs()).mean()


def windows(pictures: list[Tensor], size: int) -> list[Tensor]:
    """The same random window of all; whole sides where they are not longer."""
    height, width = pictures[0].shape[2:]
    top = int(torch.randint(max(0, height - size) + 1, ()))
    left = int(torch.randint(max(0, width - size) + 1, ()))
    return [p[:, :, top : top + size, left : left + size] for p in pictures]


class PairedHeads(nn.Module):
    """How real each place of VGG's features looks, at three depths."""

    def __init__(self, channels: tuple[int, ...] = (128, 256, 512), width: int = 96) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(inside, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for inside in channels
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """A logit for each position and depth."""
        return [
            head(F.instance_norm(f.float())).float() for head, f in zip(self.heads, features, strict=True)
        ]


class Adversary:
    """The heads and their optimiser. The loss is softplus of the difference of a pair's logits, in either direction."""

    def __init__(self, device: torch.device, lr: float = 2e-4) -> None:
        net = PairedHeads()
        self.net: PairedHeads = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr, betas=(0.5, 0.9), weight_decay=0.0)

    def fooling(self, real: list[Tensor], fake: list[Tensor]) -> Tensor:
        """What the restorer pays for looking less real than the original."""
        self.net.requires_grad_(False)
        with torch.no_grad():
            on_real = self.net([f.detach() for f in real])
        on_fake = self.net(fake)
        self.net.requires_grad_(True)
        return torch.stack([F.softplus(a - b).mean() for a, b in zip(on_real, on_fake, strict=True)]).mean()

    def learn(self, real: list[Tensor], fake: list[Tensor]) -> Tensor:
        """One step on both; returns the loss (0.69: knows nothing, 0: is never fooled)."""
        with torch.autocast(real[0].device.type, torch.bfloat16):
            on_real, on_fake = (self.net([f.detach() for f in seen]) for seen in (real, fake))
        loss = torch.stack([F.softplus(b - a).mean() for a, b in zip(on_real, on_fake, strict=True)]).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        self.optimiser.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
