# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Networks like Stable Diffusion's as the sampler's ``Denoiser``: diffusers gives networks and schedulers, no loop.

    previous ── VAE ── latent [B, 4, H/8, W/8] + sigma noise = x ──┬── steps ── VAE ── pictures
    control ── ControlNet, if there is one ─────────────────────> U-Net

``x``, noise and arithmetic between steps are float32 whatever the networks compute in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from picogram.diffusion.denoiser import AttentionGuide, Batch, Texts, Window
from picogram.diffusion.stages import AttentionMode
from picogram_decoder.hub.guidance import guided, guided_layers
from picogram_decoder.hub.hub_models import HubModel
from picogram_decoder.hub.parts import Parts
from picogram_decoder.hub.prompts import HubTexts, read_prompts

CELL = 8


class HubDenoiser:
    """A ``Denoiser``. Not thread-safe: guided steps change the network while they run."""

    cell = CELL

    def __init__(self, model: HubModel, parts: Parts, attention: AttentionMode = "bias") -> None:
        """``attention``: how a stage's words are made to act inside its mask."""
        self.model, self.parts, self.attention = model, parts, attention
        self.align, self.tile = model.align, model.tile
        self.batch_pixels = 4 * 2**20
        self.reach: int | None = None
        self.kind: str = model.kind
        self.layers = guided_layers(parts.unet)
        parts.vae.enable_slicing()
        parts.vae.enable_tiling()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.parts.unet.device
        return device

    def read(self, prompts: Sequence[str]) -> HubTexts:
        """Prompts of any length; tokens beyond the tokenizer's length are cut off."""
        return read_prompts(self.parts, prompts)

    def begin(self, batch: Batch) -> HubProcess:
        """A process with a scheduler and generators of its own."""
        return HubProcess(self, batch)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures 0..1 to latents of about unit variance, float32."""
        vae = self.parts.vae
        latent = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        scaled: Tensor = latent.float() * vae.config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The way back, clamped to 0..1."""
        vae = self.parts.vae
        decoded = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
        pictures: Tensor = (decoded.float() / 2 + 0.5).clamp(0, 1)
        return pictures


class HubProcess:
    """A ``StageProcess``. From ``start`` of the noise levels that the scheduler knows, or the model's ``furthest`` if
    that is less, ``steps`` of its steps to the end."""

    def __init__(self, denoiser: HubDenoiser, batch: Batch) -> None:
        stage = batch.stages[0]
        self._denoiser, self._parts = denoiser, denoiser.parts
        self.count = stage.steps
        start = min(stage.start, denoiser.model.furthest)
        self._pure = start == 1
        self._scheduler = self._parts.scheduler()
        first = _prepare(self._scheduler, stage.steps, start)
        self._times = self._scheduler.timesteps[first:]
        self._sigmas: list[float] = self._scheduler.sigmas[first:].tolist()
        self._latent = denoiser.encode(batch.previous)
        self._control = batch.control.to(denoiser.device, self._parts.unet.dtype)
        # on the CPU and one for each picture: a seed is the same noise on any machine, alone or among others
        self._generators = [torch.Generator().manual_seed(s.seed) for s in batch.stages]
        noise = [torch.randn(self._latent.shape[1:], generator=g) for g in self._generators]
        self._noise = torch.stack(noise).to(denoiser.device)

    def start(self) -> Tensor:
        """Noise alone from the highest level, else the previous pictures in noise."""
        return self._sigmas[0] * self._noise if self._pure else self.noisy(0)

    def noisy(self, index: int) -> Tensor:
        return self._latent + self._sigmas[index] * self._noise

    def deviation(self, index: int) -> float:
        return self._sigmas[index]

    def predict(
        self, x: Tensor, index: int, texts: Texts, window: Window, guide: AttentionGuide | None = None
    ) -> Tensor:
        """The noise, or what the model predicts instead of it."""
        assert isinstance(texts, HubTexts)  # noqa: S101 - what ``read`` gave
        unet, time = self._parts.unet, self._times[index]
        options: dict[str, Any] = {"encoder_hidden_states": texts.hidden, "return_dict": False}
        if texts.whole is not None:
            ids = self._sizes(len(x), window).to(unet.device, unet.dtype)
            options["added_cond_kwargs"] = {"text_embeds": texts.whole, "time_ids": ids}
        scaled = self._scheduler.scale_model_input(x, time).to(unet.dtype)
        if self._parts.control is not None:
            picture = window.of(self._control, CELL)
            down, mid = self._parts.control(scaled, time, controlnet_cond=picture, **options)
            options |= {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        with guided(self._denoiser.layers, guide, window.height, window.width):
            output: Tensor = unet(scaled, time, **options)[0]
        return output.float()

    def step(self, output: Tensor, x: Tensor, index: int) -> Tensor:
        following: Tensor = self._scheduler.step(
            output, self._times[index], x, generator=self._generators, return_dict=False
        )[0]
        return following

    def finish(self, x: Tensor) -> Tensor:
        return self._denoiser.decode(x)

    def _sizes(self, batch: int, window: Window) -> Tensor:
        """What SDXL is told of its training pictures: size, offset of the crop, size asked for ``[B, 6]``. Small pictures
        are announced as large ones of their shape, as small ones were blurry."""
        height, width = window.height * CELL, window.width * CELL
        grow = max(1.0, self._denoiser.tile / min(height, width))
        size = round(height * grow), round(width * grow)
        return torch.tensor([[*size, 0, 0, *size]] * batch)


def _prepare(scheduler: Any, steps: int, start: float) -> int:
    """Set the times so that the last ``steps`` of them begin at ``start`` of the noise levels; the index of the first."""
    levels: int = scheduler.config.num_train_timesteps
    total = min(levels, max(steps, round(steps / start)))
    scheduler.set_timesteps(total)
    while len(scheduler.timesteps) != total and total < levels:
        total += 1  # for some numbers rounding makes diffusers add a time below 0
        scheduler.set_timesteps(total)
    scheduler.set_begin_index(total - steps)
    return total - steps
