# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded diffusion model behind the sampler's ``Denoiser``: pictures themselves are ``x``, steps are Euler's.

Its words need the language model's table of tokens. Where that has not been pulled, every prompt counts as empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from picogram.diffusion.bridge import NOISE, Condition, draw_noise, euler, mix, times
from picogram.diffusion.conditioning import EncodedText, WordTable, WordVectors, no_words
from picogram.diffusion.denoiser import AttentionGuide, Batch, Texts, Window
from picogram.diffusion.diffusion_net import ALIGN, DiffusionNet
from picogram.diffusion.stages import AttentionMode
from picogram.errors import ModelError
from picogram.latent.codec import unpack_floats
from picogram.latent.transforms import STRIDE
from picogram.models import DEFAULT_DIFFUSION, shipped_manifest, shipped_weights
from picogram.processor import Placement

TILE: Final = 768
"""Windows overlap by an eighth, 96 pixels; 64 from a window's edge it shows what the whole would, within 1 of 255."""
REACH: Final = 96
_TABLE = ("embedding", "embedding.scale")


@lru_cache(maxsize=1)
def _table() -> WordTable:
    """Vectors of the language model's tokens; ModelMissing or ModelDamaged without it."""
    from picogram.models.store import text_model_file

    with safe_open(text_model_file(), "pt") as tensors:
        return WordTable({name: tensors.get_tensor(name) for name in _TABLE})


def look_up(prompts: Sequence[str]) -> WordVectors | None:
    """Prompts as the embedded language model splits them; None without it."""
    from picogram.text.lm.loading_lm import load_tokenizer

    try:
        tokens = load_tokenizer()
        return _table()([tokens.split(prompt) for prompt in prompts])
    except (ModelError, ModuleNotFoundError):
        return None


class EmbeddedDenoiser:
    """A ``Denoiser``. Safe to share between threads."""

    cell, align, tile, kind = 1, ALIGN, TILE, "embedded"
    reach: int | None = REACH
    attention: AttentionMode = (
        "bias"  # gradients find nothing to move: its attention reads the latent, not ``x``
    )
    batch_pixels = 1  # each picture alone: the same bytes in any company; a processor gains nothing by more

    def __init__(
        self,
        net: DiffusionNet,
        model: int = 0,
        words: Callable[[Sequence[str]], WordVectors | None] = look_up,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """``net`` in evaluation mode, which is moved to ``device``; ``model``: its id; ``words``: prompts to vectors, on
        any device; ``device``, ``dtype``: as ``Placement.of`` takes them, as for what it raises."""
        self.placement = Placement.of(device, dtype)
        self.net, self.model, self._words = net.to(self.placement.device), model, words

    @property
    def device(self) -> torch.device:
        """Where the network and ``x`` live."""
        return self.placement.device

    def read(self, prompts: Sequence[str]) -> EncodedText:
        """Prompts of any length; the net takes the first tokens of each. Control characters are text like any other."""
        words = self._words(prompts) if any(prompts) else None
        words = words or no_words(len(prompts), self.net.config.word_width)
        with self.placement.autocast():
            return self.net.encode(words.to(self.device))

    def begin(self, batch: Batch) -> EmbeddedProcess:
        return EmbeddedProcess(self, batch)


class EmbeddedProcess:
    """A ``StageProcess``: from ``start`` of the noise level, times run to 1."""

    def __init__(self, denoiser: EmbeddedDenoiser, batch: Batch) -> None:
        stages = batch.stages
        self._denoiser, self._batch = denoiser, batch
        self.count = stages[0].steps
        self._times = times(self.count, 1 - stages[0].start)
        height, width = batch.control.shape[2:]
        self._device = denoiser.device
        self._noise = draw_noise([stage.seed for stage in stages], height, width).to(self._device)
        self._condition = Condition(
            batch.control.contiguous(memory_format=torch.channels_last),
            torch.stack([base.latent for base in batch.bases]).to(self._device),
            torch.tensor([base.rate for base in batch.bases], device=self._device),
        ).aligned()

    def start(self) -> Tensor:
        return self.noisy(0)

    def noisy(self, index: int) -> Tensor:
        moments = torch.full((len(self._noise),), self._times[index], device=self._device)
        return mix(self._condition.base, self._noise, self._batch.previous, moments)

    def deviation(self, index: int) -> float:
        return NOISE * (1 - self._times[index])

    def predict(
        self, x: Tensor, index: int, texts: Texts, window: Window, guide: AttentionGuide | None = None
    ) -> Tensor:
        """The clean pictures."""
        assert isinstance(texts, EncodedText)  # noqa: S101 - what ``read`` gave
        c, net = self._condition, self._denoiser.net
        part = Window(*(v // STRIDE for v in (window.top, window.left, window.height, window.width)))
        now = torch.full((len(x),), self._times[index], device=self._device)
        x = x.contiguous(memory_format=torch.channels_last)
        with self._denoiser.placement.autocast():
            clean: Tensor = net(x, window.of(c.base), part.of(c.latent), c.rate, now, texts, guide)
        return clean.float()

    def step(self, output: Tensor, x: Tensor, index: int) -> Tensor:
        clean = output.clamp(0, 1)  # as in training
        return euler(x, clean, self._times[index], self._times[index + 1])

    def finish(self, x: Tensor) -> Tensor:
        return x


def load_denoiser(
    model: int = DEFAULT_DIFFUSION, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> EmbeddedDenoiser:
    """A shipped diffusion model, cached by model, device and dtype; the last two as ``Placement.of`` takes them.

    Raises ModelMissing, ModelDamaged, and UsageError for a GPU that is not there.
    """
    return _loaded(model, Placement.of(device, dtype))


@lru_cache(maxsize=2)
def _loaded(model: int, placement: Placement) -> EmbeddedDenoiser:
    manifest = shipped_manifest(f"diffusion-{model}")
    net = DiffusionNet()
    net.load_state_dict(unpack_floats(load_file(shipped_weights(manifest))))
    net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return EmbeddedDenoiser(net, model, device=placement.device, dtype=placement.dtype)
