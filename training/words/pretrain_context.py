# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Teach latents to look like image features before any word is involved: cheap steps, no language model.

    python -m training.words.pretrain_context --recipe training/runs/context-pretrain.json --grids LATENTS \\
        --features FEATURES --captioner CAPTIONER/last.pt --out RUN

The five embeddings are drawn to the captioner's own (whole picture and corner cells), and a linear head on the last grid
to the backbone's class probabilities. Photos are those of ``extract_latents`` and ``extract_features``, in order of name.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.words.projectors import EMBEDDING_RMS, FeatureProjector, LatentProjector
from training.words.train_visual import load_features

CORNERS = (0, 1, 3, 7, 9)
"""Tokens of the captioner: the whole picture, then the corners of its 3 x 3 cells."""


@torch.no_grad()
def targets(features: np.ndarray, captioner: Path) -> Tensor:
    """The captioner's embeddings, ``[N, variants, 5, width]``, with rows of unit variance."""
    state = torch.load(captioner)["seeing"]
    own = {k.removeprefix("projector."): v for k, v in state.items() if k.startswith("projector.")}
    projector = FeatureProjector(features.shape[2], features.shape[3], own["first.bias"].numel())
    projector.load_state_dict(own)
    found = []
    for start in range(0, len(features), 64):
        part = torch.from_numpy(np.asarray(features[start : start + 64])).float()
        found.append(
            (projector(part.flatten(0, 1))[:, CORNERS] / projector.scale).unflatten(0, part.shape[:2])
        )
    return torch.cat(found).half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("recipe", "grids", "features", "captioner", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    recipe = json.loads(args.recipe.read_text())
    torch.manual_seed(recipe["seed"])
    grids = np.load(args.grids / "grids.npy", mmap_mode="r")
    wanted = targets(load_features(args.features), args.captioner)
    classes = torch.from_numpy(np.load(args.features / "logits.npy")).swapaxes(0, 1)
    net = LatentProjector(grids.shape[2], wanted.shape[-1])
    net.calibrate(torch.from_numpy(np.array(grids[:512, 0])))
    head = nn.Linear(net.whole.in_features, classes.shape[-1])
    args.out.mkdir(parents=True, exist_ok=True)
    fit(net, head, grids, wanted, classes, recipe)
    torch.save(net.state_dict(), args.out / "projector.pt")


def losses(
    net: LatentProjector,
    head: nn.Linear,
    grids: np.ndarray,
    wanted: Tensor,
    classes: Tensor,
    photos: list[int],
    v: int,
) -> tuple[Tensor, Tensor]:
    """Squared distance of the embeddings and divergence of the classes, for one variant of some photos."""
    x = torch.from_numpy(np.stack([grids[p, v] for p in photos])).float()
    if net.training:
        x = x + torch.randn_like(x) * 0.15 * net.spread[:, None, None]
    deep = net.features(x)
    probabilities = classes[photos, v].float().softmax(1)
    divergence = F.kl_div(head(deep.mean((2, 3))).log_softmax(1), probabilities, reduction="batchmean")
    return F.mse_loss(net.from_features(deep) / EMBEDDING_RMS, wanted[photos, v].float()), divergence


def fit(
    net: LatentProjector, head: nn.Linear, grids: np.ndarray, wanted: Tensor, classes: Tensor, recipe: dict
) -> None:
    parameters = [*net.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe["lr"], weight_decay=recipe["decay"])
    trained, start, step = int(len(grids) * 0.9), time.time(), 0
    budget = recipe["minutes"] * 60
    while (spent := time.time() - start) < budget:
        order = torch.randperm(trained).tolist()
        net.train()
        for i in range(0, trained - recipe["batch"], recipe["batch"]):
            progress = min(1.0, (time.time() - start) / budget)
            for group in optimiser.param_groups:
                cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2
                group["lr"] = recipe["lr"] * min(1, (step + 1) / 50) * cosine
            photos = sorted(order[i : i + recipe["batch"]])
            distance, divergence = losses(net, head, grids, wanted, classes, photos, step % 2)
            optimiser.zero_grad()
            (distance + recipe["classes"] * divergence).backward()
            optimiser.step()
            step += 1
        net.eval()
        with torch.no_grad():
            found = losses(net, head, grids, wanted, classes, list(range(trained, len(grids))), 0)
        print(
            f"{spent / 60:.1f}m step {step} held-out distance {found[0]:.4f} classes {found[1]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
