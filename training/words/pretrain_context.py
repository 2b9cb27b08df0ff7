# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Teach latents to look like image features before any word is involved: cheap steps, no language model.

    python -m training.words.pretrain_context --recipe training/runs/context-pretrain.json --grids LATENTS \\
        --features FEATURES --captioner CAPTIONER/average.safetensors --out RUN

The five embeddings are drawn to the captioner's own (whole picture and corner cells), and a linear head on the last grid
to the backbone's class probabilities. Photos are those of ``extract_latents`` and ``extract_features``, in order of name.
A recipe's ``task`` may say ``decay``, of the weights, and ``weight``, of the probabilities against the embeddings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import command
from training.command import engine_of, recipe_of
from training.engine import Task, Weights, holding, weights_of
from training.phases import Phase
from training.words.data import HELD_OUT, Shuffled
from training.words.projectors import EMBEDDING_RMS, FeatureProjector, LatentProjector
from training.words.train_visual import Array, load_features, projector_of

CORNERS = (0, 1, 3, 7, 9)
"""Tokens of the captioner: the whole picture, then the corners of its 3 x 3 cells."""
NOISE = 0.15
"""On the grids in training, in units of their spread."""


class Pretrained(nn.Module):
    """The projector, and the head that only this training needs."""

    def __init__(self, projector: LatentProjector, classes: int) -> None:
        super().__init__()
        self.projector = projector
        self.head = nn.Linear(projector.whole.in_features, classes)


class ContextTask(Task):
    """Latents of photos, drawn to what is seen in these."""

    model: Pretrained

    def __init__(
        self,
        model: Pretrained,
        grids: Array,
        wanted: Tensor,
        classes: Tensor,
        rng: np.random.Generator,
        decay: float = 0.1,
        weight: float = 0.3,
    ) -> None:
        """``grids [N, variants, C, 8, 8]``; ``wanted [N, variants, 5, width]``: embeddings; ``classes [N, variants, n]``:
        logits, whose ``weight`` is against the embeddings' distance."""
        self.decay, self.weight = decay, weight
        super().__init__(model, rng)
        self.grids, self.wanted, self.classes = grids, wanted, classes
        self.trained, self.turn = int(len(grids) * (1 - HELD_OUT)), 0
        self.photos = Shuffled(self.trained, rng)

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), 1.0, weight_decay=self.decay, fused=True)

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        photos = sorted(self.photos.next(phase.batch))
        parts = self._parts(photos, self.turn % self.grids.shape[1])
        self.turn += 1
        return {"loss": parts["distance"] + self.weight * parts["classes"]} | parts

    def _parts(self, photos: Sequence[int], variant: int) -> dict[str, Tensor]:
        """Squared distance of the embeddings and divergence of the classes, for one variant of some photos."""
        net, rows = self.model.projector, list(photos)
        x = torch.from_numpy(np.stack([self.grids[p, variant] for p in rows])).float()
        if self.model.training:
            x = x + torch.randn_like(x) * NOISE * net.spread[:, None, None]
        deep = net.features(x)
        probabilities = self.classes[rows, variant].float().softmax(1)
        found = self.model.head(deep.mean((2, 3))).log_softmax(1)
        distance = F.mse_loss(net.from_features(deep) / EMBEDDING_RMS, self.wanted[rows, variant].float())
        return {"distance": distance, "classes": F.kl_div(found, probabilities, reduction="batchmean")}

    @torch.no_grad()
    def judge(self, average: Weights) -> dict[str, float]:
        """On the last tenth; the score is the distance, 1 for knowing nothing."""
        with holding(self.model, average):
            parts = self._parts(range(self.trained, len(self.grids)), 0)
        found = {k: round(float(v), 4) for k, v in parts.items()}
        return {"score": found["distance"], "held_out_classes": found["classes"]}

    def state(self) -> dict[str, Any]:
        return {"left": self.photos.left, "turn": self.turn}

    def load(self, state: dict[str, Any]) -> None:
        self.photos.left, self.turn = state["left"], state["turn"]


@torch.no_grad()
def targets(features: Array, captioner: Path) -> Tensor:
    """The captioner's embeddings, ``[N, variants, 5, width]``, with rows of unit variance."""
    own = projector_of(weights_of(captioner))
    projector = FeatureProjector(features.shape[2], features.shape[3], own["first.bias"].numel())
    projector.load_state_dict(own)
    found = []
    for start in range(0, len(features), 64):
        part = torch.from_numpy(np.asarray(features[start : start + 64])).float()
        seen = projector(part.flatten(0, 1))[:, CORNERS] / projector.scale
        found.append(seen.unflatten(0, part.shape[:2]))
    return torch.cat(found).half()


def parser() -> argparse.ArgumentParser:
    """The options of a run."""
    made = command.parser(__doc__.splitlines()[0])
    for name in ("grids", "features", "captioner"):
        made.add_argument(f"--{name}", type=Path, required=True)
    return made


def main() -> None:
    args = parser().parse_args()
    recipe, seed = recipe_of(args)
    grids = np.load(args.grids / "grids.npy", mmap_mode="r")
    wanted = targets(load_features(args.features), args.captioner)
    classes = torch.from_numpy(np.load(args.features / "logits.npy")).swapaxes(0, 1)
    net = LatentProjector(grids.shape[2], wanted.shape[-1])
    net.calibrate(torch.from_numpy(np.array(grids[:512, 0])))
    rng = np.random.default_rng(seed)
    task = ContextTask(Pretrained(net, classes.shape[-1]), grids, wanted, classes, rng, **recipe.task)
    command.run(engine_of(args, recipe, task, seed), args)


if __name__ == "__main__":
    main()
