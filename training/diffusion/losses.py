# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a restored picture is judged by: distance to the original, and a discriminator.

    prediction ─┬─ Charbonnier, LPIPS (alex) ──────────────────────────────────────────── on everything
                ├─ VGG features of a window of some samples ─┬─ DISTS
                │                                            └─ small heads ── real or not ─┐
                ├─ beside the base picture ── strided convolutions ── real or not ──────────┴─ hinge
                └─ EfficientNet features of a window ─┬─ distance to the original's
                                                      └─ pooled: likelier among originals than among predictions

Heads on frozen features learn in minutes what a discriminator on pixels needs hours for (Sauer et al., Projected GANs,
NeurIPS 2021), and DISTS has computed the features already. The one on pixels sees the base picture too, so it asks for
a picture that this base could have come from. Matching moments of fixed features (Dos Santos et al., ICCV 2019; the
kernel is KID's) pulls the same way and has no opponent that could drift; as it descends the very distance that judges
it, a second network must judge as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from picogram.metrics.perceptual import Dists, Lpips, dists_distance, load_dists, load_lpips
from picogram.semantics.features import FeatureNet

FLAT = 0.03
"""Deviation within nine pixels below which a photograph counts as flat; its own grain is half of that."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; ``vgg_share`` of the samples are seen by VGG, in windows of ``vgg_crop`` pixels.

    ``blurred`` pins down brightness and colour: more contrast is the cheapest way to look real to a discriminator.
    Networks of terms without weight are not loaded; the discriminator has no heads on features without ``dists``.
    """

    charbonnier: float = 2.0
    blurred: float = 0.0  # Charbonnier of means over squares of 8 pixels
    smooth: float = 0.0  # detail where the original has none
    lpips: float = 1.0
    dists: float = 2.0
    adversarial: float = 0.0
    semantic: float = 0.0  # mean distance of EfficientNet's last features, position by position
    moments: float = 0.0  # gradient of the kernel distance between predictions and originals
    feature_crop: int = 128
    vgg_crop: int = 96
    vgg_share: float = 0.5
    adversary_crop: int = 128


@dataclass(frozen=True)
class Seen:
    """What the discriminator gets: windows beside their base, and VGG features."""

    picture: Tensor
    features: list[Tensor]

    def detached(self) -> Seen:
        return Seen(self.picture.detach(), [f.detach() for f in self.features])


class Distances(nn.Module):
    """The distances to the original."""

    def __init__(self, folder: Path, weights: LossWeights, features: FeatureNet | None = None) -> None:
        """``folder`` of the LPIPS and DISTS weights; ``features`` is needed by ``semantic`` and ``moments``."""
        super().__init__()
        self.weights = weights
        self.features = features if weights.semantic or weights.moments else None
        self.moments = Moments()
        self.alex: Lpips | None = load_lpips(folder, "alex") if weights.lpips else None
        self.vgg: Dists | None = load_dists(folder) if weights.dists else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, x_hat: Tensor, base: Tensor) -> tuple[dict[str, Tensor], Seen, Seen]:
        """Means of the terms, and what a discriminator may look at of the original and of the prediction.

        All but Charbonnier see clamped values: a discriminator is linear far out, and would draw the picture there.
        """
        weights = self.weights
        difference = x - x_hat
        parts = {"charbonnier": charbonnier(difference), "blurred": charbonnier(F.avg_pool2d(difference, 8))}
        if weights.smooth:
            parts["smooth"] = excess(x, x_hat)
        x_hat = x_hat.clamp(0, 1)
        if self.alex is not None:
            parts["lpips"] = self.alex(x, x_hat).mean()
        real: list[Tensor] = []
        fake: list[Tensor] = []
        if self.vgg is not None:
            parts["dists"], real, fake = self._dists(self.vgg, x, x_hat)
        if self.features is not None:
            parts |= self._features(self.features, x, x_hat)
        a, b, beside = windows([x, x_hat, base], weights.adversary_crop)
        return parts, Seen(torch.cat((a, beside), 1), real), Seen(torch.cat((b, beside), 1), fake)

    def _features(self, net: FeatureNet, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        a, b = windows([x, x_hat], self.weights.feature_crop)
        with torch.no_grad():
            real = net(a)
        fake = net(b)
        semantic = (real.spatial - fake.spatial).abs().mean()
        return {"semantic": semantic, "moments": self.moments(real.pooled.float(), fake.pooled.float())}

    def _dists(self, vgg: Dists, x: Tensor, x_hat: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """DISTS of a window of some samples, and features of the three middle blocks: the first is too close to
        pixels, the last too coarse for such windows."""
        chosen = torch.randperm(len(x), device=x.device)[: max(1, round(len(x) * self.weights.vgg_share))]
        a, b = windows([x[chosen], x_hat[chosen]], self.weights.vgg_crop)
        with torch.no_grad():
            real = vgg.features((a - vgg.mean.to(a)) / vgg.std.to(a))
        fake = vgg.features((b - vgg.mean.to(b)) / vgg.std.to(b))
        found = dists_distance([a, *real], [b, *fake], vgg.alpha, vgg.beta).mean()
        return found, real[1:4], fake[1:4]


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
        self.real, self.fake = (
            new.detach() if bank is None else torch.cat((bank, new.detach()))[-self.size :]
            for bank, new in ((self.real, real), (self.fake, fake))
        )
        return loss


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    """KID's kernel (Binkowski et al., ICLR 2018), ``[len(a), len(b)]``."""
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
    """The same random window of all; whole pictures if they are not larger."""
    height, width = pictures[0].shape[2:]
    if size >= min(height, width):
        return pictures
    top = int(torch.randint(height - size + 1, ()))
    left = int(torch.randint(width - size + 1, ()))
    return [p[:, :, top : top + size, left : left + size] for p in pictures]


class Discriminator(nn.Module):
    """Logits of patches from pixels beside their base, and from VGG features of three depths."""

    def __init__(self, width: int = 48, head: int = 64) -> None:
        super().__init__()
        widths = [6, width, 2 * width, 4 * width, 4 * width]
        self.body = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(widths)
        )
        self.last = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(channels, head, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(head, head, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(head, 1, 1)),
            )
            for channels in (128, 256, 512)
        )

    def forward(self, seen: Seen) -> list[Tensor]:
        h = 2 * seen.picture - 1
        for conv in self.body:
            h = F.leaky_relu(conv(h), 0.2)
        logits = [self.last(h)]
        for head, features in zip(self.heads, seen.features, strict=False):  # no features: no heads
            # unit length: the backbone's magnitudes differ a hundredfold between depths
            unit = features * torch.rsqrt(features.float().square().mean(1, keepdim=True) + 1e-3)
            logits.append(head(unit))
        return [v.float() for v in logits]


class Adversary:
    """The discriminator and its optimiser; the first of its four judges counts as much as the other three."""

    shares = (0.5, 1 / 6, 1 / 6, 1 / 6)

    def __init__(self, device: torch.device, lr: float = 2e-4) -> None:
        net = Discriminator()
        self.net: Discriminator = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr, betas=(0.5, 0.9), weight_decay=0.0)

    def fooling(self, fake: Seen) -> Tensor:
        """What the restorer pays for being recognised."""
        self.net.requires_grad_(False)
        logits = self.net(fake)
        self.net.requires_grad_(True)
        return -torch.stack([s * v.mean() for s, v in zip(self.shares, logits, strict=False)]).sum()

    def learn(self, real: Seen, fake: Seen) -> float:
        """One step on both; the hinge loss (2: knows nothing, 0: is never fooled)."""
        with torch.autocast(real.picture.device.type, torch.bfloat16):
            on_real, on_fake = self.net(real.detached()), self.net(fake.detached())
        loss = torch.zeros((), device=real.picture.device)
        for share, a, b in zip(self.shares, on_real, on_fake, strict=False):
            loss = loss + share * (F.relu(1 - a).mean() + F.relu(1 + b).mean())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
