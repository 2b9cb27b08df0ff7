# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the language model to see: a projector from picture features to input embeddings, on captioned photos.

    python -m training.words.train_visual --recipe training/runs/captioner.json --data flickr8k.tar \\
        --features FEATURES --lm LM --tokenizer TOKENIZER --prompt PROMPT/best.safetensors --out RUN

The captions of a photo share one pass over its prefix. Projector, prompt and low-rank adapters are trained. Only tokens
that occur in the captions compete. A recipe's ``model`` says the adapters' ``rank``; its ``task``: see ``Teaching``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training import command
from training.command import engine_of, recipe_of
from training.engine import TrainingTask, Weights, holding, weights_of
from training.phases import Phase
from training.words.data import Example, Shuffled, captioned, pad, tokenised
from training.words.float_lm import Adapters, FloatLM
from training.words.projectors import FeatureProjector
from training.words.train_prompt import Prompt, prompt_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Teaching:
    """``decay`` of the projector's weights; ``prompt_speed``: how many times faster the prompt learns; ``captions`` of a
    photo in a step; ``held_out``: how many photos judge; ``sentences``: share of captions as proper sentences."""

    decay: float = 0.02
    prompt_speed: float = 4.0
    captions: int = 5
    held_out: int = 96
    sentences: float = 0.0


class Vocabulary:
    """The tokens of a set of texts."""

    def __init__(self, examples: list[list[Example]], size: int) -> None:
        self.ids = torch.tensor(sorted({i for group in examples for e in group for i in e.ids}))
        self.place = torch.zeros(size, dtype=torch.int64)
        self.place[self.ids] = torch.arange(len(self.ids))


class Seeing(nn.Module):
    """Projector, prompt and adapters around a frozen language model."""

    def __init__(self, model: FloatLM, prompt: Tensor, projector: FeatureProjector, rank: int) -> None:
        super().__init__()
        self.around = [model]  # not a submodule: it is not saved
        self.projector = projector
        self.prompt = Prompt(prompt)
        self.adapters = Adapters(model.config, rank)

    def prefix(self, features: Tensor) -> Tensor:
        """Keys and values of prompt and picture, ``[layers, 2, B, n, kv * d]``."""
        prompt: Tensor = self.prompt()
        _, seen = self.around[0](self.projector(features), prompt, self.adapters, keep=True)
        fixed = prompt[:, :, None].expand(*prompt.shape[:2], len(features), *prompt.shape[2:])
        return torch.cat((fixed.to(seen.dtype), seen), 3)

    def nats(self, features: Tensor, captions: list[list[Example]], vocabulary: Vocabulary) -> Tensor:
        """Nats of every token of the captions, grouped by photo."""
        each = torch.tensor([len(c) for c in captions])
        prefix = self.prefix(features).repeat_interleave(each, 2)
        ids, mask = pad([e for group in captions for e in group])
        inputs = torch.cat((torch.zeros(len(ids), 1, dtype=torch.int64), ids[:, :-1]), 1)
        model = self.around[0]
        states = model(model.embed(inputs), prefix, self.adapters)
        logits = F.linear(states[mask], model.embedding[vocabulary.ids]).float()
        return F.cross_entropy(logits, vocabulary.place[ids[mask]], reduction="none")


class VisualTask(TrainingTask):
    """A language model that learns to see, on photos below ``trained``; those after them judge."""

    model: Seeing

    def __init__(
        self,
        model: Seeing,
        features: Array,
        texts: list[list[Example]],
        trained: int,
        teaching: Teaching,
        rng: np.random.Generator,
    ) -> None:
        """``features [N, variants, n, d]`` and ``texts``, the captions, of the same photos."""
        self.teaching = teaching
        super().__init__(model, rng)
        self.features, self.texts, self.trained = features, texts, trained
        self.vocabulary = Vocabulary(texts, model.around[0].config.vocabulary)
        self.photos = Shuffled(trained, rng)

    def groups(self) -> list[dict[str, Any]]:
        model, decay = self.model, self.teaching.decay
        speed = self.teaching.prompt_speed
        return [
            {"params": [*model.projector.parameters()], "speed": 1.0, "weight_decay": decay},
            {"params": [*model.adapters.parameters()], "speed": 1.0, "weight_decay": 0.0},
            {"params": [model.prompt.offset], "speed": speed, "weight_decay": 0.0},
        ]

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), 1.0, (0.9, 0.98), fused=True)

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        photos = self.photos.next(phase.batch)
        captions = [self._some(self.texts[p]) for p in photos]
        variants = self.rng.integers(self.features.shape[1], size=len(photos)).tolist()
        seen = batch_of(self.features, photos, variants)
        return {"loss": self.model.nats(seen, captions, self.vocabulary).mean()}

    def _some(self, captions: list[Example]) -> list[Example]:
        count = min(self.teaching.captions, len(captions))
        return [captions[i] for i in self.rng.permutation(len(captions))[:count]]

    @torch.no_grad()
    def judge(self, average: Weights) -> dict[str, float]:
        """Bits a held-out caption; lower is better."""
        last = min(len(self.texts), self.trained + self.teaching.held_out)
        total, count = 0.0, 0
        with holding(self.model, average):
            for i in range(self.trained, last, 16):
                photos = range(i, min(i + 16, last))
                captions = [self.texts[p][: self.teaching.captions] for p in photos]
                seen = batch_of(self.features, photos, [0] * len(photos))
                total += float(self.model.nats(seen, captions, self.vocabulary).sum())
                count += sum(len(c) for c in captions)
        return {"score": round(total / count / math.log(2), 4)}

    def state(self) -> dict[str, Any]:
        return {"left": self.photos.left}

    def load(self, state: dict[str, Any]) -> None:
        self.photos.left = state["left"]


def make(model: FloatLM, prompt: Tensor, features: Array, rank: int) -> Seeing:
    """An untrained model for ``features [N, variants, n, d]``."""
    projector = FeatureProjector(features.shape[2], features.shape[3], model.config.width)
    return Seeing(model, prompt, projector, rank)


def batch_of(features: Array, photos: Sequence[int], variants: Sequence[int]) -> Tensor:
    """A variant each of the features of some photos."""
    return torch.from_numpy(np.stack([features[p, v] for p, v in zip(photos, variants, strict=True)])).float()


def load_features(path: Path) -> Array:
    """The pooled vector and the cells of ``extract_features`` as ten tokens."""
    pooled, cells = np.load(path / "pooled.npy"), np.load(path / "tokens.npy")  # [2 (mirrored), N, ...]
    return np.concatenate((pooled[:, :, None], cells), 2).swapaxes(0, 1)


def parser() -> argparse.ArgumentParser:
    """The options of a run."""
    made = command.parser("Teach the language model to see.")
    for name in ("data", "features", "lm", "tokenizer", "prompt"):
        made.add_argument(f"--{name}", type=Path, required=True)
    return made


def main() -> None:
    args = parser().parse_args()
    recipe, seed = recipe_of(args)
    teaching = Teaching(**recipe.task)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    train, held_out = captioned(args.data)
    texts = tokenised(train, tokenizer, teaching.sentences) + tokenised(held_out, tokenizer, 0.0)
    features = load_features(args.features)
    if len(features) != len(texts):
        raise SystemExit(f"{len(features)} features for {len(texts)} photos")
    model = FloatLM(load_file(args.lm))
    seeing = make(model, prompt_of(weights_of(args.prompt)), features, **recipe.model)
    task = VisualTask(seeing, features, texts, len(train), teaching, np.random.default_rng(seed))
    command.run(engine_of(args, recipe, task, seed), args)


if __name__ == "__main__":
    main()
