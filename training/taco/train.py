# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train a latent codec with the text adapter and the joint loss; resumable at any minute.

    python -m training.taco.train --recipe training/runs/taco-01.json --start LATENT/last.pt --data CROPS \\
        --photos PHOTOS --states STATES --metrics WEIGHTS --out RUN

Steps take turns at random: crops without captions, and whole captioned photographs (``training.taco.pack``). The
model starts from a checkpoint of ``training.train_latent`` with an adapter that does nothing yet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from picogram.latent.guide import AdapterConfig
from picogram.latent.model import LatentCodec
from picogram.models.store import features_file
from picogram.semantics.features import FeatureNet, Features
from picogram.semantics.joint import JointHeads, load_heads, vectors_of
from training.taco.data import Batch, Captioned, without_some
from training.taco.losses import contrast, drift
from training.train_latent import Phase, Sample, Trainer, arguments

OTHERS = 250
"""Captions of other photos that each picture's own is told from, beside the batch's."""


class TacoTrainer(Trainer):
    """The same, with captions in some steps.

    A recipe's ``taco`` says: ``captioned``, the share of steps on captioned photographs, ``photos`` of them a step,
    ``drop``, the share of their captions that the encoder does not get, ``contrast`` and ``drift``, the weights of
    L_con and of the norm, and ``share`` of a batch that these look at, weighted up.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.heads, self.features = self.networks()
        self.settings = json.loads(args.recipe.read_text())["taco"]
        self.photos = Captioned(args.photos, args.states, self.heads, args.seed)
        self.captions: Batch | None = None
        super().__init__(args)
        self.photos.random = np.random.default_rng(args.seed + self.step)

    def networks(self) -> tuple[JointHeads, Callable[[Tensor], Features]]:
        """The frozen parts of the joint space."""
        net = FeatureNet(load_file(features_file()))
        return load_heads(), net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def empty_model(self) -> LatentCodec:
        """With an adapter, unless the recipe is a control's."""
        if not self.settings.get("adapter", True):
            return super().empty_model()
        model = LatentCodec(adapter=AdapterConfig(text_width=self.heads.config.text_width))
        assert model.adapter is not None
        model.adapter.offset.copy_(self.heads.text_offset)
        model.adapter.factor.copy_(self.heads.text_factor)
        return model

    def sample(self, phase: Phase) -> Sample:
        """Crops, or photographs with most of their captions."""
        self.captions = None
        if torch.rand(()) >= self.settings["captioned"]:
            return super().sample(phase)
        self.captions = batch = self.photos.batch(self.settings["photos"])
        keep = torch.rand(len(batch.pixels)) >= self.settings["drop"]
        return Sample(batch.pixels, without_some(batch.guide, keep))

    def further(
        self, phase: Phase, sample: Sample, x_hat: Tensor
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """L_con where there are captions, and the norm everywhere."""
        weights = self.settings
        if not weights["contrast"] and not weights["drift"]:
            return 0.0, {}
        count = max(2, round(len(x_hat) * weights["share"]))
        chosen = torch.randperm(len(x_hat))[:count]
        with torch.no_grad():
            images = vectors_of(self.features, self.heads, sample.pixels[chosen])
        decoded = vectors_of(self.features, self.heads, x_hat[chosen].clamp(0, 1)).float()
        parts = {"drift": drift(images.float(), decoded)}
        if self.captions is not None:
            texts, others = self.captions.texts[chosen], self.photos.others(OTHERS)
            parts["contrast"] = contrast(decoded, texts, others, float(self.heads.log_scale.exp()))
        spread = {
            name: torch.zeros(len(x_hat)).index_copy(0, chosen, part * (len(x_hat) / count))
            for name, part in parts.items()
        }
        return sum((weights[name] * part for name, part in spread.items()), torch.zeros(())), spread


def main() -> None:
    parser = arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("--photos", type=Path, required=True, help="folder made by training.taco.pack")
    parser.add_argument("--states", type=Path, required=True, help="folder made by training.joint.data")
    args = parser.parse_args()
    TacoTrainer(args).run(time.time() + args.stop_after)


if __name__ == "__main__":
    main()
