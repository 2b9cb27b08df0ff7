# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How a latent model learns to listen: as without captions, and in some steps with them and the joint loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picogram.latent.guide import AdapterConfig
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.transforms import TransformConfig
from picogram.semantics.features import Features
from picogram.semantics.joint import JointHeads, vectors_of
from training.engine import weights_of
from training.frozen import shipped_latent
from training.latent.task import LatentSettings, LatentTask, Sample, is_shipped
from training.phases import Phase
from training.photos import PhotoBank
from training.taco.data import Captioned, CaptionedBatch, without_some
from training.taco.losses import contrast, drift

OTHERS = 250
"""Captions of other photos that each picture's own is told from, beside the batch's."""


@dataclass(frozen=True)
class TacoSettings(LatentSettings):
    """Of a phase, beside those of a latent model.

    ``captioned``: share of steps on captioned photographs; ``captioned_batch``: how many a step (0: as many as windows);
    ``withheld``: share of their captions that the encoder does not get; ``contrast`` and ``drift``: weights of L_con and
    of the norm; ``share`` of a batch that these look at, weighted up.
    """

    captioned: float = 0.4
    captioned_batch: int = 0
    withheld: float = 0.25
    contrast: float = 0.02
    drift: float = 0.3
    share: float = 0.5


class TacoTask(LatentTask):
    """A latent model on photographs, some with captions; ``captions`` are those of the step, where it has any."""

    settings: TacoSettings

    def __init__(
        self,
        model: LatentCodec,
        photos: PhotoBank,
        captioned: Captioned,
        features: Callable[[Tensor], Features],
        metrics: Path,
        compiled: bool = False,
    ) -> None:
        """``features``: the frozen picture network of the joint space, on the photographs' device as ``captioned``."""
        super().__init__(model, photos, metrics, compiled)
        self.captioned, self.features, self.heads = captioned, features, captioned.heads
        self.scale = self.heads.log_scale.detach().exp()
        self.captions: CaptionedBatch | None = None

    def check(self, phase: Phase) -> None:
        self.check_settings(TacoSettings(**phase.settings))

    def begin(self, phase: Phase) -> None:
        own = {k for k in TacoSettings.__dataclass_fields__ if k not in LatentSettings.__dataclass_fields__}
        others = {k: v for k, v in phase.settings.items() if k not in own}
        super().begin(replace(phase, settings=others))
        self.settings = TacoSettings(**phase.settings)

    def sample(self, phase: Phase) -> Sample:
        """Windows, or photographs with most of their captions."""
        self.captions = None
        if self.rng.random() >= self.settings.captioned:
            return super().sample(phase)
        self.captions = batch = self.captioned.batch(self.settings.captioned_batch or phase.batch)
        keep = torch.rand(len(batch.pixels), device=self.device) >= self.settings.withheld
        return Sample(batch.pixels, without_some(batch.guide, keep))

    def further(self, sample: Sample, decoded: Tensor) -> tuple[Tensor | float, dict[str, Tensor]]:
        """L_con where there are captions, and the norm everywhere."""
        settings = self.settings
        if not settings.contrast and not settings.drift:
            return 0.0, {}
        count = max(2, round(len(decoded) * settings.share))
        chosen = torch.randperm(len(decoded), device=self.device)[:count]
        with torch.no_grad():
            images = vectors_of(self.features, self.heads, sample.pixels[chosen])
        seen = vectors_of(self.features, self.heads, decoded[chosen].clamp(0, 1)).float()
        parts = {"drift": drift(images.float(), seen)}
        if self.captions is not None:
            texts, others = self.captions.texts[chosen], self.captioned.others(OTHERS)
            parts["contrast"] = contrast(seen, texts, others, self.scale)
        none = torch.zeros(len(decoded), device=self.device)
        spread = {k: none.index_copy(0, chosen, v * (len(decoded) / count)) for k, v in parts.items()}
        return sum((getattr(settings, k) * v for k, v in spread.items()), none), spread


def with_adapter(model: LatentCodec, heads: JointHeads, start: Path | None) -> LatentCodec:
    """The same model with an adapter: that of ``start``, or a new one that does nothing yet."""
    transforms = TransformConfig.of(model.state_dict())
    made = LatentCodec(transforms, model.prior.config, AdapterConfig(text_width=heads.config.text_width))
    assert made.adapter is not None
    made.adapter.offset.copy_(heads.text_offset)
    made.adapter.factor.copy_(heads.text_factor)
    state: dict[str, Any] = made.state_dict() | model.state_dict()
    if start is not None:
        weights = shipped_latent(start)[0].state_dict() if is_shipped(start) else weights_of(start)
        state |= {k: v for k, v in weights.items() if k.startswith("adapter.")}
    made.load_state_dict(state)
    return made
