# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the language model to see: a projector from picture features to input embeddings, on captioned photos.

    python -m training.words.train_visual --recipe training/runs/captioner.json --data flickr8k.tar \\
        --features FEATURES.npy --lm LM --tokenizer TOKENIZER --prompt PROMPT.pt --out RUN

The five captions of a photo share one pass over its prefix. Projector and prompt are trained; recipes with
``rank`` add low-rank adapters (the captioner, which runs in floats); without, the language model stays as it is (the
coder's context, which must run in integers). Only tokens that occur in the captions compete. Resumes from ``last.pt``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.words.data import Example, captioned, pad, tokenised
from training.words.float_lm import Adapters, FloatLM
from training.words.projectors import FeatureProjector, LatentProjector
from training.words.train_prompt import Prompt


class Seeing(nn.Module):
    """Projector, prompt and, for the captioner, adapters around a frozen language model."""

    def __init__(self, model: FloatLM, prompt: Tensor, projector: nn.Module, rank: int) -> None:
        super().__init__()
        self.model = [model]  # not a submodule: it is not saved
        self.projector = projector
        self.prompt = Prompt(prompt)
        self.adapters = Adapters(model.config, rank) if rank else None

    def prefix(self, features: Tensor) -> Tensor:
        """Keys and values of prompt and picture, ``[layers, 2, B, n, kv * d]``."""
        prompt = self.prompt()
        _, seen = self.model[0](self.projector(features), prompt, self.adapters, keep=True)
        fixed = prompt[:, :, None].expand(*prompt.shape[:2], len(features), *prompt.shape[2:])
        return torch.cat((fixed.to(seen.dtype), seen), 3)

    def nats(self, features: Tensor, captions: list[list[Example]], vocabulary: "Vocabulary") -> Tensor:
        """Nats of every token of the captions, grouped by photo."""
        each = torch.tensor([len(c) for c in captions])
        prefix = self.prefix(features).repeat_interleave(each, 2)
        ids, mask = pad([e for group in captions for e in group])
        inputs = torch.cat((torch.zeros(len(ids), 1, dtype=torch.int64), ids[:, :-1]), 1)
        model = self.model[0]
        states = model(model.embed(inputs), prefix, self.adapters)
        logits = F.linear(states[mask], model.embedding[vocabulary.ids]).float()
        return F.cross_entropy(logits, vocabulary.place[ids[mask]], reduction="none")


class Vocabulary:
    """The tokens of a set of texts."""

    def __init__(self, examples: list[list[Example]], size: int) -> None:
        self.ids = torch.tensor(sorted({i for group in examples for e in group for i in e.ids}))
        self.place = torch.zeros(size, dtype=torch.int64)
        self.place[self.ids] = torch.arange(len(self.ids))


def make(recipe: dict, model: FloatLM, prompt: Tensor, features: np.ndarray) -> Seeing:
    """An untrained model as a recipe describes it; ``features [N, variants, ...]``."""
    if recipe["projector"] == "latents":
        projector: nn.Module = LatentProjector(features.shape[2], model.config.width)
        projector.calibrate(torch.from_numpy(np.array(features[:512, 0])))
    else:
        projector = FeatureProjector(features.shape[2], features.shape[3], model.config.width)
    return Seeing(model, prompt, projector, recipe.get("rank", 0))


def parameter_groups(seeing: Seeing, recipe: dict) -> list[dict]:
    groups = [{"params": list(seeing.projector.parameters()), "speed": 1.0, "weight_decay": recipe["decay"]}]
    if seeing.adapters is not None:
        groups.append({"params": list(seeing.adapters.parameters()), "speed": 1.0, "weight_decay": 0.0})
    groups.append({"params": [seeing.prompt.offset], "speed": recipe["prompt_speed"], "weight_decay": 0.0})
    return groups


@torch.no_grad()
def evaluate(
    seeing: Seeing, features: np.ndarray, captions: list[list[Example]], vocabulary: Vocabulary
) -> float:
    """Bits per caption on held-out photos."""
    total, count = 0.0, 0
    for i in range(0, len(captions), 16):
        part = captions[i : i + 16]
        total += seeing.nats(batch_of(features, range(i, i + len(part)), 0), part, vocabulary).sum().item()
        count += sum(len(c) for c in part)
    return total / count / math.log(2)


def batch_of(features: np.ndarray, photos: list[int] | range, variant: int | None) -> Tensor:
    """Features of some photos; ``variant`` None draws one each."""
    pick = [random.randrange(features.shape[1]) if variant is None else variant for _ in photos]
    return torch.from_numpy(np.stack([features[p, v] for p, v in zip(photos, pick, strict=True)])).float()


def load_features(path: Path) -> np.ndarray:
    """``grids.npy`` of ``extract_latents``, or the pooled vector and the cells of ``extract_features`` as ten tokens."""
    if (path / "grids.npy").exists():
        return np.load(path / "grids.npy", mmap_mode="r")
    pooled, cells = np.load(path / "pooled.npy"), np.load(path / "tokens.npy")  # [2 (mirrored), N, ...]
    return np.concatenate((pooled[:, :, None], cells), 2).swapaxes(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("recipe", "data", "features", "lm", "tokenizer", "prompt", "out", "start"):
        parser.add_argument(f"--{name}", type=Path, required=name != "start")
    args = parser.parse_args()
    recipe = json.loads(args.recipe.read_text())
    torch.manual_seed(recipe["seed"])
    random.seed(recipe["seed"])
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    train, held_out = captioned(args.data)
    texts = tokenised(train, tokenizer, recipe.get("sentences", 0.0)) + tokenised(held_out, tokenizer, 0.0)
    features = load_features(args.features)
    if len(features) != len(texts):
        raise SystemExit(f"{len(features)} features for {len(texts)} photos")
    model = FloatLM(load_file(args.lm))
    seeing = make(recipe, model, torch.load(args.prompt).float(), features)
    if args.start:
        seeing.projector.load_state_dict(torch.load(args.start), strict=True)
    args.out.mkdir(parents=True, exist_ok=True)
    run(seeing, features, texts, len(train), Vocabulary(texts, model.config.vocabulary), recipe, args.out)


def run(
    seeing: Seeing, features: np.ndarray, texts: list[list[Example]], trained: int, vocabulary: Vocabulary,
    recipe: dict, out: Path,
) -> None:  # fmt: skip
    optimiser = torch.optim.AdamW(parameter_groups(seeing, recipe), lr=recipe["lr"], betas=(0.9, 0.98))
    step, spent = 0, 0.0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt")
        seeing.load_state_dict(state["seeing"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    check = [c[: recipe["captions"]] for c in texts[trained : trained + recipe["held_out"]]]
    budget, clock, running = recipe["minutes"] * 60, time.time(), []
    order: list[int] = []
    while spent < budget:
        rate = min(1, (step + 1) / 40) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent / budget)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = recipe["lr"] * group["speed"] * rate
        if len(order) < recipe["batch"]:
            order = random.sample(range(trained), trained)
        photos, order = order[: recipe["batch"]], order[recipe["batch"] :]
        captions = [random.sample(texts[p], min(recipe["captions"], len(texts[p]))) for p in photos]
        loss = seeing.nats(batch_of(features, photos, None), captions, vocabulary).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
        optimiser.step()
        step += 1
        running.append(loss.item())
        now = time.time()
        spent, clock = spent + now - clock, now
        if step % recipe["every"] == 0 or spent >= budget:
            bits = evaluate(seeing, features[trained:], check, vocabulary)
            print(
                f"{spent / 60:.1f}m step {step} nats {np.mean(running):.4f} held-out bits {bits:.3f}",
                flush=True,
            )
            running = []
            state = {"seeing": seeing.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step, "spent": spent}, out / "last.pt")
            clock = time.time()


if __name__ == "__main__":
    main()
