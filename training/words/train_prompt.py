# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Tune a soft prompt for coding one kind of text: keys and values of virtual tokens in every layer (Li and Liang,
"Prefix-Tuning", 2021), the language model frozen. Starts from the keys and values of a written prompt.

    python -m training.words.train_prompt --recipe training/runs/prompt-short.json --data TEXTS --lm LM --out RUN

TEXTS is a tar with ``captions.jsonl`` or a JSON-lines file with ``text``. Resumes from ``last.pt`` in RUN.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from training.words.data import Example, batches, captioned, pad, tokenise, tokenised
from training.words.float_lm import FloatLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("recipe", "data", "lm", "tokenizer", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--start", type=Path, help="a prompt of an earlier run, instead of the recipe's words"
    )
    args = parser.parse_args()
    recipe = json.loads(args.recipe.read_text())
    torch.manual_seed(recipe["seed"])
    model = FloatLM(load_file(args.lm))
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    train, held_out = load_texts(args.data, tokenizer, recipe.get("sentences", 0.0))
    args.out.mkdir(parents=True, exist_ok=True)
    start = torch.load(args.start) if args.start else written_prompt(model, tokenizer, recipe["start"])
    run(model, start, train, held_out[: recipe["held_out"]], recipe, args.out)


def load_texts(
    path: Path, tokenizer: Tokenizer, sentences: float = 0.0
) -> tuple[list[Example], list[Example]]:
    """Training and held-out texts: all captions of the training photos, the first of each held-out one.

    ``sentences``: share of the captions of a tar that are written as proper sentences; the others stay as they are.
    """
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
    _, kept = model(model.embed(ids), keep=True)
    return kept[:, :, 0].float()


class Prompt(torch.nn.Module):
    """Offsets from a starting prefix, in units of the spread of each layer's keys and values."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.register_buffer("unit", start.std((2, 3), keepdim=True))
        self.offset = torch.nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        return self.start + self.offset * self.unit


def nats(model: FloatLM, prefix: Tensor, group: list[Example]) -> tuple[Tensor, Tensor]:
    """Nats of every real token of a batch, and the mask. The first token is predicted from the prefix's last position,
    which is not part of the batch: a virtual last token, the start token, is fed in its place."""
    ids, mask = pad(group)
    inputs = torch.cat((torch.zeros(len(group), 1, dtype=torch.int64), ids[:, :-1]), 1)
    states = model(model.embed(inputs), prefix)
    return model.losses(states[mask], ids[mask]), mask


@torch.no_grad()
def evaluate(model: FloatLM, prefix: Tensor, examples: list[Example]) -> dict[str, float]:
    total = 0.0
    ordered = sorted(examples, key=lambda e: len(e.ids))
    for i in range(0, len(ordered), 32):
        total += nats(model, prefix, ordered[i : i + 32])[0].sum().item()
    bits = total / math.log(2)
    return {
        "bits": round(bits / len(examples), 3),
        "bits_per_character": round(bits / sum(e.characters for e in examples), 4),
    }


def run(
    model: FloatLM, start: Tensor, train: list[Example], held_out: list[Example], recipe: dict, out: Path
) -> None:
    prompt = Prompt(start)
    optimiser = torch.optim.Adam(prompt.parameters(), lr=recipe["lr"], betas=(0.9, 0.98))
    step, spent, best = 0, 0.0, float("inf")
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt")
        prompt.load_state_dict(state["prompt"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent, best = state["step"], state["spent"], state["best"]
    else:
        print("start", start.shape[2], "tokens", evaluate(model, start, held_out), flush=True)
    groups = batches(train, recipe["batch"], recipe["seed"] + step)
    clock = time.time()
    budget = recipe["minutes"] * 60
    while spent < budget:
        fraction = spent / budget
        for group in optimiser.param_groups:
            group["lr"] = (
                recipe["lr"]
                * min(1, (step + 1) / 50)
                * (0.02 + 0.98 * (1 + math.cos(math.pi * fraction)) / 2)
            )
        losses, _ = nats(model, prompt(), next(groups))
        loss = losses.mean()
        if recipe.get("decay"):
            loss = loss + recipe["decay"] * prompt.offset.square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prompt.parameters(), 1.0)
        optimiser.step()
        step += 1
        now = time.time()
        spent, clock = spent + now - clock, now
        if step % recipe["every"] == 0 or spent >= budget:
            found = evaluate(model, prompt().detach(), held_out)
            print(f"{spent / 60:.1f}m step {step} nats {losses.mean().item():.4f} {found}", flush=True)
            if found["bits"] < best:
                best = found["bits"]
                torch.save(prompt().detach(), out / "best.pt")
            state = {"prompt": prompt.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step, "spent": spent, "best": best}, out / "last.pt")
            clock = time.time()


if __name__ == "__main__":
    main()
