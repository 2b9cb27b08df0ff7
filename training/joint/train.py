# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the heads of the joint space on the arrays of ``training.joint.data``; resumable at any step.

    python -m training.joint.train --recipe training/runs/joint-01.json --data DATA --out RUN

The averaged weights that found most of the held-out pairs are in ``RUN/best.safetensors``, all held-out scores in
``RUN/log.jsonl``. Training ends when these have not risen for ``patience`` looks. A recipe's ``model`` says ``dropout``
and widths of ``JointConfig``; its ``task`` may say ``decay``, of the weights, and ``max_scale``, the bound of the learnt
temperature's inverse.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from picogram.semantics.joint import JointConfig, JointHeads
from training import command
from training.command import TrainingRecipe, engine_of, recipe_of
from training.engine import TrainingEngine, TrainingTask, Weights
from training.joint.batches import Pairs
from training.joint.losses import cell_scores, contrast, whole_scores
from training.joint.validate import mean_recall, recalls
from training.phases import Phase

_CHUNK = 128


@dataclass(frozen=True)
class JointSettings:
    """Of a phase, beside the engine's.

    ``cells``: how many of a photo's are seen in a step; ``cell_weight``: of the loss on single cells; ``drop_tokens``:
    share of a caption's tokens that a step leaves out.
    """

    cells: int = 7
    cell_weight: float = 0.3
    drop_tokens: float = 0.1


class JointTask(TrainingTask):
    """Heads on pairs of photos and captions; every photo is seen before one is seen again."""

    model: JointHeads

    def __init__(self, model: JointHeads, data: Pairs, decay: float = 0.05, max_scale: float = 100.0) -> None:
        super().__init__(model, data.random)
        self.data, self.decay, self.max_scale = data, decay, max_scale
        self.settings, self.order = JointSettings(), list[int]()

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), 1.0, (0.9, 0.98), weight_decay=self.decay, fused=True)

    def begin(self, phase: Phase) -> None:
        self.settings = JointSettings(**phase.settings)
        if self.data.train < phase.batch:
            raise SystemExit(f"{self.data.train} photos for training do not fill a batch of {phase.batch}")

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        settings = self.settings
        if len(self.order) < phase.batch:
            self.order = self.rng.permutation(self.data.train).tolist()
        photos, self.order = self.order[: phase.batch], self.order[phase.batch :]
        batch = self.data.sample(photos, settings.cells, settings.drop_tokens)
        with torch.autocast("cpu", torch.bfloat16):
            images, cells = self.model.image(batch.pooled, batch.cells)
            texts = self.model.text(batch.states, batch.mask)
        images, cells, texts = images.float(), cells.float(), texts.float()
        scale = self.model.log_scale.exp()
        parts = {"whole": contrast(whole_scores(images, texts, scale))}
        loss = parts["whole"]
        if settings.cell_weight:
            parts["cells"] = contrast(cell_scores(cells, texts, scale))
            loss = loss + settings.cell_weight * parts["cells"]
        return {"loss": loss, "scale": scale} | parts

    @torch.no_grad()
    def stepped(self) -> dict[str, Tensor]:
        self.model.log_scale.clamp_(max=math.log(self.max_scale))
        return {}

    @torch.no_grad()
    def judge(self, average: Weights) -> dict[str, float]:
        """Recalls on the held-out photos, all cells and captions; the score is the mean of the six, negated."""
        heads, data = JointHeads(self.model.config).eval(), self.data
        heads.load_state_dict(average)
        images: list[Tensor] = []
        for i in range(data.train, data.count, _CHUNK):
            span = slice(i, min(i + _CHUNK, data.count))
            pooled, cells = (torch.from_numpy(a[0, span].copy()).float() for a in (data.pooled, data.cells))
            images.append(heads.image(pooled, cells)[0])
        first, last = int(data.captions[data.train]), int(data.captions[-1])
        chunks = (range(i, min(i + _CHUNK, last)) for i in range(first, last, _CHUNK))
        texts = torch.cat([heads.text(*data.texts(chunk)) for chunk in chunks])
        found = recalls(torch.cat(images) @ texts.T, data.owners(data.train, data.count))
        flat = {f"{way} {rank}": share for way, part in found.items() for rank, share in part.items()}
        mean = mean_recall(found)
        return {"score": -mean, "mean_recall": round(mean, 4), **flat}

    def state(self) -> dict[str, Any]:
        return {"order": self.order}

    def load(self, state: dict[str, Any]) -> None:
        self.order = state["order"]

    def about(self) -> dict[str, Any]:
        return {"layers": self.data.layers}


def task_of(recipe: TrainingRecipe, data: Path, seed: int) -> JointTask:
    """Heads for the arrays in ``data``; text channels are brought to one size by what they are in training."""
    pairs = Pairs(data, np.random.default_rng(seed))
    sizes = {k: v for k, v in recipe.model.items() if k != "dropout"}
    config = JointConfig(
        layers=pairs.layers, image_width=pairs.cells.shape[-1], text_width=pairs.states.shape[-1], **sizes
    )
    heads = JointHeads(config, recipe.model.get("dropout", 0.0))
    known = pairs.places[pairs.captions[pairs.train]]
    spread = np.linspace(0, known - 1, min(known, 50_000)).astype(np.int64)
    heads.calibrate(torch.from_numpy(pairs.states[spread]).float())
    return JointTask(heads, pairs, **recipe.task)


def engine(args: argparse.Namespace) -> TrainingEngine:
    """A run as the options say."""
    recipe, seed = recipe_of(args)
    return engine_of(args, recipe, task_of(recipe, args.data, seed), seed)


def parser() -> argparse.ArgumentParser:
    """The options of a run."""
    made = command.parser(__doc__.splitlines()[0])
    made.add_argument("--data", type=Path, required=True, help="folder made by training.joint.data")
    return made


def main() -> None:
    args = parser().parse_args()
    made = engine(args)
    command.run(made, args)
    print(f"mean recall {-made.best:.4f}")


if __name__ == "__main__":
    main()
