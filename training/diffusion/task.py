# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How the embedded diffusion model learns: from what a frozen latent model makes of photographs, back to these."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from picogram.diffusion.bridge import NOISE, mix
from picogram.diffusion.colour import fix_colour
from picogram.diffusion.conditioning import EncodedText, WordTable
from picogram.diffusion.diffusion_net import DiffusionNet
from picogram.diffusion.rrdb import DenseBlock
from picogram.semantics.features import FeatureNet
from training.devices import autocast, placed
from training.diffusion.losses import Adversary, DiffusionLossWeights, Distances, Judged, Moments
from training.engine import TrainingTask
from training.frozen import FrozenCodec
from training.phases import Phase
from training.photos import PhotoBank, PhotoBatch

RATIO_EVERY = 20
"""Steps between two looks at how large the adversary's gradient is."""
LARGEST_RATIO = 1e3


@dataclass(frozen=True)
class DiffusionSettings:
    """Of a phase, beside the engine's.

    ``captioned``: share of steps on captioned photographs, whose captions are dropped with chance ``drop``; ``later``:
    share of each batch that starts from a prediction instead of from the base picture. Rates are drawn as
    ``top * u ** low``, u uniform. ``loss``: see ``DiffusionLossWeights``.
    """

    crop: int = 256
    captioned: float = 0.1
    drop: float = 0.3
    later: float = 0.125
    natural: float = 0.6
    top: float = 0.95
    low: float = 1.2
    loss: dict[str, float] = field(default_factory=dict)


class DiffusionTask(TrainingTask):
    """The diffusion network on photographs."""

    model: DiffusionNet

    def __init__(
        self,
        model: DiffusionNet,
        codec: FrozenCodec,
        photos: PhotoBank,
        table: WordTable,
        metrics: Path,
        features: FeatureNet | None = None,
        fresh: float = 3.0,
    ) -> None:
        """``metrics``: folder with the weights of LPIPS and DISTS. ``features``: for terms on them. ``fresh``: how many
        times faster what is new beside the trunk and the stem learns."""
        super().__init__(placed(model, photos.device), photos.rng, photos.device)
        self.photos, self.table, self.metrics, self.fresh = photos, table, metrics, fresh
        self.codec: FrozenCodec = placed(codec, self.device)
        self.features = placed(features, self.device) if features else None
        table.vectors = table.vectors.to(self.device)
        self.adversary = Adversary(self.device)
        self.settings, self.moments, self.judged = DiffusionSettings(), Moments(), Judged({}, [], [])
        self.distances = Distances(metrics, DiffusionLossWeights(lpips=0, dists=0))
        self.looks = 0
        self.ratio = torch.zeros((), device=self.device)

    def groups(self) -> list[dict[str, Any]]:
        old = [*self.model.trunk.parameters(), *self.model.stem.parameters()]
        known = set(map(id, old))
        new = [p for p in self.model.parameters() if id(p) not in known]
        return [{"params": old, "speed": 1.0}, {"params": new, "speed": self.fresh}]

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.groups(), 1.0, (0.9, 0.99), fused=True)

    def check(self, phase: Phase) -> None:
        DiffusionLossWeights(**DiffusionSettings(**phase.settings).loss)  # type: ignore[arg-type]

    def begin(self, phase: Phase) -> None:
        """The distances change; what their banks hold, and the adversary, stay."""
        self.settings = DiffusionSettings(**phase.settings)
        weights = DiffusionLossWeights(**self.settings.loss)  # type: ignore[arg-type]
        self.distances = Distances(self.metrics, weights, self.features).to(self.device)
        self.distances.moments = self.moments

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        settings, rng = self.settings, self.rng
        captioned = rng.random() < settings.captioned and any(self.photos.shaped.values())
        if captioned:
            batch = self.photos.captioned(phase.batch, settings.drop)
        else:
            batch = self.photos.windows(phase.batch, settings.crop, settings.natural)
        x = batch.originals.contiguous(memory_format=torch.channels_last)
        rate = settings.top * torch.rand(len(x), device=self.device) ** settings.low
        base, latent = self.codec(x, rate)
        with autocast(self.device):
            prediction = fix_colour(self._predict(base, latent, rate, batch), base)
            self.judged = judged = self.distances(x, prediction)
            loss = total = self.distances.total(judged.parts)
            parts = dict(judged.parts)
            if self.distances.weights.adversarial:
                parts["fooling"] = self.adversary.fooling(judged.real, judged.fake)
                loss = total + self._adversary_weight(total, parts["fooling"]) * parts["fooling"]
        return {"loss": loss} | {k: v.detach() for k, v in parts.items()}

    def _predict(self, base: Tensor, latent: Tensor, rate: Tensor, batch: PhotoBatch) -> Tensor:
        """From the base picture with noise; a few samples from a prediction on the way."""
        text = self.model.encode(self.table.look_up(batch.ids, batch.lengths))
        noise, time = torch.randn_like(base), torch.zeros(len(base), device=self.device)
        x = base + NOISE * noise
        count = round(self.settings.later * len(base))
        if count:
            some = slice(0, count)
            mask = EncodedText(text.tokens[some], text.mask[some])
            with torch.no_grad():
                early = self.model(x[some], base[some], latent[some], rate[some], time[some], mask)
            time[some] = 0.2 + 0.7 * torch.rand(count, device=self.device)
            x[some] = mix(base[some], noise[some], early.clamp(0, 1), time[some])
        found: Tensor = self.model(x, base, latent, rate, time, text)
        return found

    def _adversary_weight(self, total: Tensor, fooling: Tensor) -> Tensor:
        """So that its gradient at the last layer is ``adversarial`` times that of all other terms (VQGAN's rule)."""
        if self.looks % RATIO_EVERY == 0:
            last = self.model.trunk.last.weight
            ours, theirs = (
                torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (total, fooling)
            )
            fresh = ours / (theirs + 1e-8)
            mixed = torch.lerp(self.ratio, fresh, 0.2) if self.looks else fresh
            self.ratio = torch.where(mixed.isfinite(), mixed, self.ratio)
        self.looks += 1
        return self.distances.weights.adversarial * self.ratio.clamp(max=LARGEST_RATIO)

    def stepped(self) -> dict[str, Tensor]:
        if not self.distances.weights.adversarial:
            return {}
        judged, self.judged = self.judged, Judged({}, [], [])
        return {"opponent": self.adversary.learn(judged.real, judged.fake)}

    def state(self) -> dict[str, Any]:
        return {
            "adversary": self.adversary.state(),
            "ratio": self.ratio,
            "looks": self.looks,
            "moments": (self.moments.real, self.moments.fake),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.adversary.load(state["adversary"])
        self.ratio, self.looks = state["ratio"], state["looks"]
        self.moments.real, self.moments.fake = state["moments"]


def start(net: DiffusionNet, trunk: Path, codec: FrozenCodec, text: Path | None) -> None:
    """Published weights into the trunk, the codec's synthesis into the stem, an earlier model's words into ``text``."""
    net.trunk.load_state_dict({k: v.float() for k, v in load_file(trunk).items()})
    with torch.no_grad():
        net.start_from_synthesis(codec.net.synthesis)
    if text:
        net.text.load_state_dict({k: v.float() for k, v in load_file(text).items()})


def compile_blocks(net: DiffusionNet) -> None:
    """Compile the dense blocks of the trunk."""
    for module in net.trunk.modules():
        if isinstance(module, DenseBlock):
            module.forward = torch.compile(module.forward, dynamic=False)  # type: ignore[method-assign]
