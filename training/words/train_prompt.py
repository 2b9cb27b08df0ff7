# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Tune a soft prompt for coding one kind of text: keys and values of virtual tokens in every layer (Li and Liang,
"Prefix-Tuning", 2021), the language model frozen. Starts from the keys and values of a written prompt.

    python -m training.words.train_prompt --recipe training/runs/prompt-short.json --data TEXTS --lm LM \\
        --tokenizer TOKENIZER --out RUN

TEXTS is a tar with ``captions.jsonl`` or a JSON-lines file with ``text``. The prompt that coded held-out texts best is in
``RUN/best.safetensors``; ``prompt_of`` reads it. A recipe's ``task``: see ``PromptTexts``.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training import command
from training.command import engine_of, recipe_of
from training.engine import TrainingTask, Weights, weights_of
from training.phases import Phase
from training.words.data import Batches, Example, captioned, pad, tokenise, tokenised
from training.words.float_lm import FloatLM


@dataclass(frozen=True)
class PromptTexts:
    """``start``: a written prompt; ``sentences``: share of the captions of a tar that are written as proper sentences,
    the others stay as they are; ``held_out``: how many texts judge; ``decay`` pulls offsets back to the start."""

    start: str = ""
    sentences: float = 0.0
    held_out: int = 400
    decay: float = 0.0


class Prompt(nn.Module):
    """Offsets from a starting prefix, in units of the spread of each layer's keys and values."""

    start: Tensor
    unit: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.register_buffer("unit", start.std((2, 3), keepdim=True))
        self.offset = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        """``[layers, 2, n, kv * d]``."""
        return self.start + self.offset * self.unit


def prompt_of(weights: Weights, prefix: str = "") -> Tensor:
    """Keys and values ``[layers, 2, n, kv * d]`` of a trained ``Prompt``, or of one within a larger model."""
    return weights[f"{prefix}start"] + weights[f"{prefix}offset"] * weights[f"{prefix}unit"]


class PromptTask(TrainingTask):
    """A prompt on texts."""

    model: Prompt

    def __init__(
        self,
        model: Prompt,
        lm: FloatLM,
        train: list[Example],
        held_out: list[Example],
        rng: np.random.Generator,
        decay: float = 0.0,
    ) -> None:
        super().__init__(model, rng)
        self.lm, self.held_out, self.decay = lm, held_out, decay
        self.batches = Batches(train, rng)

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.groups(), 1.0, (0.9, 0.98), fused=True)

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        losses = nats(self.lm, self.model(), self.batches.next(phase.batch))
        mean = losses.mean()
        return {"loss": mean + self.decay * self.model.offset.square().mean(), "nats": mean}

    @torch.no_grad()
    def judge(self, average: Weights) -> dict[str, float]:
        """Bits a held-out text; lower is better."""
        prefix, total = prompt_of(average), 0.0
        ordered = sorted(self.held_out, key=lambda e: len(e.ids))
        for i in range(0, len(ordered), 32):
            total += float(nats(self.lm, prefix, ordered[i : i + 32]).sum())
        bits = total / math.log(2)
        characters = sum(e.characters for e in self.held_out)
        return {
            "score": round(bits / len(self.held_out), 3),
            "bits_per_character": round(bits / characters, 4),
        }

    def state(self) -> dict[str, Any]:
        return {"left": self.batches.left}

    def load(self, state: dict[str, Any]) -> None:
        self.batches.left = state["left"]


def load_texts(
    path: Path, tokenizer: Tokenizer, sentences: float = 0.0
) -> tuple[list[Example], list[Example]]:
    """Training and held-out texts: all captions of the training photos, the first of each held-out one."""
    if path.suffix == ".tar":
        train, held_out = captioned(path)
        examples = [e for photo in tokenised(train, tokenizer, sentences) for e in photo]
        return examples, [tokenise(tokenizer, row["captions"][0]) for row in held_out]
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    cut = int(len(texts) * 0.9)
    return [tokenise(tokenizer, t) for t in texts[:cut]], [tokenise(tokenizer, t) for t in texts[cut:]]


@torch.no_grad()
def written_prompt(model: FloatLM, tokenizer: Tokenizer, text: str) -> Tensor:
    """Keys and values of a written prompt after the start token, ``[layers, 2, n, kv * d]``."""
    ids = torch.tensor([[0, *tokenizer.encode(text).ids]])
    kept: Tensor = model(model.embed(ids), keep=True)[1]
    return kept[:, :, 0].float()


def nats(model: FloatLM, prefix: Tensor, group: list[Example]) -> Tensor:
    """Nats of every real token of a batch. The first token is predicted from the prefix's last position, which is not
    part of the batch: a virtual last token, the start token, is fed in its place."""
    ids, mask = pad(group)
    inputs = torch.cat((torch.zeros(len(group), 1, dtype=torch.int64), ids[:, :-1]), 1)
    states = model(model.embed(inputs), prefix)
    return model.losses(states[mask], ids[mask])


def parser() -> argparse.ArgumentParser:
    """The options of a run."""
    made = command.parser("Tune a soft prompt for coding one kind of text.")
    for name in ("data", "lm", "tokenizer"):
        made.add_argument(f"--{name}", type=Path, required=True)
    made.add_argument(
        "--start", type=Path, help="weights of an earlier run, instead of the recipe's written prompt"
    )
    return made


def main() -> None:
    args = parser().parse_args()
    recipe, seed = recipe_of(args)
    about, model = PromptTexts(**recipe.task), FloatLM(load_file(args.lm))
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    if not (about.start or args.start):
        raise SystemExit(f"{args.recipe} has no written prompt: --start must name weights")
    train, held_out = load_texts(args.data, tokenizer, about.sentences)
    start = prompt_of(weights_of(args.start)) if args.start else written_prompt(model, tokenizer, about.start)
    rng = np.random.default_rng(seed)
    task = PromptTask(Prompt(start), model, train, held_out[: about.held_out], rng, about.decay)
    engine = engine_of(args, recipe, task, seed)
    if not engine.step:
        print("start", start.shape[2], "tokens", task.judge(engine.average), flush=True)
    command.run(engine, args)


if __name__ == "__main__":
    main()
