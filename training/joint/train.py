# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the heads of the joint space on the arrays of ``training.joint.data``; resumable after any epoch.

    python -m training.joint.train --recipe training/runs/joint-01.json --data DATA --out RUN

State lies in ``RUN/last.pt``, the averaged weights of the best epoch in ``RUN/best.safetensors``, the held-out scores of
all epochs in ``RUN/history.json``. Training ends when these have not risen for ``patience`` epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from picogram.semantics.joint import JointConfig, JointHeads
from training.joint.batches import Batch, Pairs
from training.joint.losses import cell_scores, contrast, whole_scores
from training.joint.validate import mean_recall, recalls

_CHUNK = 128


@dataclass(frozen=True)
class Recipe:
    """``cells``: how many of a photo's are seen in a step; ``cell_weight``: of the loss on single cells.

    ``drop_tokens``: share of a caption's tokens that a step leaves out; ``average``: decay of the averaged weights;
    ``max_scale``: bound of the learnt temperature's inverse.
    """

    seed: int = 1
    epochs: int = 60
    batch: int = 512
    lr: float = 1e-3
    decay: float = 0.05
    warmup: int = 30
    dropout: float = 0.3
    drop_tokens: float = 0.1
    cells: int = 7
    cell_weight: float = 0.3
    average: float = 0.98
    patience: int = 8
    max_scale: float = 100.0
    image_hidden: int = 512
    text_hidden: int = 512
    width: int = 256


class Trainer:
    """Heads, optimiser and everything a resumed run needs."""

    def __init__(self, recipe: Recipe, data: Path, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.data = Pairs(data, recipe.seed)
        if self.data.train < recipe.batch:
            raise SystemExit(f"{self.data.train} photos for training do not fill a batch of {recipe.batch}")
        torch.manual_seed(recipe.seed)
        config = JointConfig(
            layers=self.data.layers,
            image_width=self.data.cells.shape[-1],
            text_width=self.data.states.shape[-1],
            image_hidden=recipe.image_hidden,
            text_hidden=recipe.text_hidden,
            width=recipe.width,
        )
        self.heads = JointHeads(config, recipe.dropout)
        known = self.data.places[self.data.captions[self.data.train]]
        spread = np.linspace(0, known - 1, min(known, 50_000)).astype(np.int64)
        self.heads.calibrate(torch.from_numpy(self.data.states[spread]).float())
        self.average = {k: v.detach().clone() for k, v in self.heads.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.heads.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.decay, fused=True
        )
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        out.mkdir(parents=True, exist_ok=True)
        if (out / "last.pt").exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.out / "last.pt", weights_only=True)
        self.heads.load_state_dict(state["heads"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.history = json.loads((self.out / "history.json").read_text())[: self.epoch]

    def save(self) -> None:
        """Write the whole state beside the old one, then swap; the history first, as it may be longer."""
        (self.out / "history.json").write_text(json.dumps(self.history, indent=1) + "\n")
        state: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds}
        state |= {"heads": self.heads.state_dict(), "average": self.average}
        state["optimiser"] = self.optimiser.state_dict()
        torch.save(state, self.out / "last.tmp")
        (self.out / "last.tmp").replace(self.out / "last.pt")

    @property
    def best(self) -> int:
        """The epoch with the best held-out score so far, counted from 0."""
        return max(range(len(self.history)), key=lambda i: float(self.history[i]["mean_recall"]))

    def run(self) -> None:
        """Train until the recipe ends or patience does."""
        recipe = self.recipe
        while self.epoch < recipe.epochs and (
            not self.history or len(self.history) - 1 - self.best < recipe.patience
        ):
            begun = time.time()
            # seeds by epoch: a resumed run goes on as it would have
            torch.manual_seed(recipe.seed + self.epoch)
            self.data.random = np.random.default_rng([recipe.seed, self.epoch])
            loss = self._epoch()
            self.epoch += 1
            self.seconds += time.time() - begun
            found = self.evaluate()
            entry = {
                "epoch": self.epoch,
                "loss": round(loss, 4),
                "mean_recall": round(mean_recall(found), 4),
                **found,
            }
            self.history.append(entry)
            scale = float(self.average["log_scale"].exp())
            print(f"{self.seconds / 60:5.1f}m scale {scale:.1f} {json.dumps(entry)}", flush=True)
            if self.best == len(self.history) - 1:
                weights = {name: value.contiguous() for name, value in self.average.items()}
                about = {
                    "steps": self.step,
                    "minutes": round(self.seconds / 60, 1),
                    "layers": self.data.layers,
                }
                save_file(weights, self.out / "best.safetensors", {k: str(v) for k, v in about.items()})
            self.save()

    def _epoch(self) -> float:
        """One pass over the training photos, each with one caption; the mean loss."""
        recipe = self.recipe
        order = self.data.random.permutation(self.data.train)
        losses = []
        for start in range(0, self.data.train - recipe.batch + 1, recipe.batch):
            photos = [int(p) for p in order[start : start + recipe.batch]]
            losses.append(self._step(self.data.sample(photos, recipe.cells, recipe.drop_tokens)))
        return sum(losses) / len(losses)

    def _step(self, batch: Batch) -> float:
        recipe = self.recipe
        self.heads.train()
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * self._rate()
        with torch.autocast("cpu", torch.bfloat16):
            images, cells = self.heads.image(batch.pooled, batch.cells)
            texts = self.heads.text(batch.states, batch.mask)
        images, cells, texts = images.float(), cells.float(), texts.float()
        scale = self.heads.log_scale.exp()
        loss = contrast(whole_scores(images, texts, scale))
        if recipe.cell_weight:
            loss = loss + recipe.cell_weight * contrast(cell_scores(cells, texts, scale))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.heads.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        weight = 1 - min(recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            self.heads.log_scale.clamp_(max=math.log(recipe.max_scale))
            for name, value in self.heads.state_dict().items():
                self.average[name].lerp_(value, weight)
        return loss.item()

    def _rate(self) -> float:
        """Share of the learning rate: a short rise, then a cosine over all epochs."""
        total = self.recipe.epochs * (self.data.train // self.recipe.batch)
        cosine = (1 + math.cos(math.pi * min(1.0, self.step / total))) / 2
        return min(1.0, (self.step + 1) / self.recipe.warmup) * (0.02 + 0.98 * cosine)

    @torch.no_grad()
    def evaluate(self) -> dict[str, dict[str, float]]:
        """Recalls of the averaged weights on the held-out photos, all cells and captions."""
        heads = JointHeads(self.heads.config).eval()
        heads.load_state_dict(self.average)
        data = self.data
        images: list[Tensor] = []
        for i in range(data.train, data.count, _CHUNK):
            span = slice(i, min(i + _CHUNK, data.count))
            pooled, cells = (torch.from_numpy(a[0, span].copy()).float() for a in (data.pooled, data.cells))
            images.append(heads.image(pooled, cells)[0])
        first, last = int(data.captions[data.train]), int(data.captions[-1])
        chunks = (range(i, min(i + _CHUNK, last)) for i in range(first, last, _CHUNK))
        texts = torch.cat([heads.text(*data.texts(chunk)) for chunk in chunks])
        return recalls(torch.cat(images) @ texts.T, data.owners(data.train, data.count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.joint.data")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    trainer = Trainer(Recipe(**json.loads(args.recipe.read_text())), args.data, args.out)
    trainer.run()
    print(json.dumps(trainer.history[trainer.best]))


if __name__ == "__main__":
    main()
