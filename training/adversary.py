# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A patch discriminator that sees the decoded latent beside the picture (HiFiC: Mentzer et al., NeurIPS 2020).

    y_hat ── 1x1 ── nearest x16 ──┐
    picture ──────────────────────┴─ three strided convolutions ── one logit per 8x8 patch

Hinge losses. Conditioning asks not for any natural picture but for one that this latent could have come from.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Logits ``[B, 1, H/8, W/8]`` of pictures ``[B, 3, H, W] 0..1`` given latents ``[B, C, H/16, W/16]``."""

    def __init__(self, latent_channels: int, width: int = 48, condition: int = 12) -> None:
        super().__init__()
        self.condition = nn.Conv2d(latent_channels, condition, 1)
        widths = [3 + condition, width, 2 * width, 4 * width]
        pairs = itertools.pairwise(widths)
        self.body = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairs)
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        condition = F.interpolate(self.condition(y), size=x.shape[2:], mode="nearest")
        h = torch.cat([2 * x - 1, condition], 1)
        for conv in self.body:
            h = F.leaky_relu(conv(h), 0.2)
        return self.head(h)


class Adversary:
    """The discriminator and its optimiser."""

    def __init__(self, latent_channels: int, device: torch.device, lr: float = 2e-4) -> None:
        net = PatchDiscriminator(latent_channels)
        self.net = net.to(device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr, betas=(0.5, 0.9), weight_decay=0.0)

    def fooling(self, x_hat: Tensor, y_hat: Tensor) -> Tensor:
        """What the codec pays for being recognised, per sample: ``[B]``. Gradients reach ``x_hat`` alone."""
        self.net.requires_grad_(False)
        loss = -self.net(x_hat, y_hat.detach()).float().mean((1, 2, 3))
        self.net.requires_grad_(True)
        return loss

    def learn(self, x: Tensor, x_hat: Tensor, y_hat: Tensor) -> float:
        """One step of the discriminator on real and decoded pictures; its hinge loss (2: knows nothing)."""
        x_hat, y_hat = x_hat.detach(), y_hat.detach()
        with torch.autocast(x.device.type, torch.bfloat16):
            real, fake = self.net(x, y_hat).float(), self.net(x_hat, y_hat).float()
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
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
