# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Turn a run's averaged weights into the shipped model: int8 transforms, an integer entropy model, measured tables.

    python -m training.latent.export RUN/average.safetensors --photos PHOTOS --model 3 --out FOLDER

The count tables are not the Gaussians or logistics of training but what the integer model really meets: residuals of
training crops, collected per scale index, smoothed by a logistic of that scale.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from picogram.bitstream.rangecoder import TOTAL
from picogram.exact import ACTIVATION_MAX, FRACTION_BITS
from picogram.latent.coding import walk_values
from picogram.latent.exact_prior import ONE, RATE_COUNT, ExactPrior
from picogram.latent.guide import AdapterConfig
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import SCALE_COUNT, Prior, scale_of_index
from picogram.latent.transforms import TransformConfig
from training.engine import progress, weights_of
from training.photos import PhotoBank, bank
from training.shipping import add_target_options, int8_channels, refuse_taken, ship

WEIGHT_BITS = 15
CROP = 256
PRIOR_SAMPLES = 2000.0
"""The smoothing logistic counts as this many observations."""


def integer_layer(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A float convolution as integers: ``[out, in * k * k]`` neighbour-major, bias on the grid of the products."""
    out_channels = weight.shape[0]
    rows = weight.permute(0, 2, 3, 1).reshape(out_channels, -1).double()
    shift = max(0, min(14, math.floor(math.log2((2**WEIGHT_BITS - 1) / float(rows.abs().max())))))
    scaled_bias = torch.round(bias.double() * 2.0 ** (shift + FRACTION_BITS))
    limit = 2.0**31 - 1
    return {
        "weight": torch.round(rows * 2.0**shift).to(torch.int16),
        "bias": scaled_bias.clamp(-limit, limit).to(torch.int32),
        "shift": torch.tensor([shift], dtype=torch.int32),
    }


def integer_prior(prior: Prior) -> dict[str, Tensor]:
    """Every tensor of ``ExactPrior`` but the tables."""
    state = {k: v.detach().float() for k, v in prior.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for name in sorted(k.removesuffix(".weight") for k in state if k.endswith(".weight")):
        if name in ("hyper_in", "hyper_mid", "hyper_out"):
            continue
        for part, value in integer_layer(state[f"{name}.weight"], state[f"{name}.bias"]).items():
            tensors[f"{name}.{part}"] = value
    for name in ("rate_shift", "index_base", "hyper_mean", "hyper_index"):
        fixed = torch.round(state[name] * ONE).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
        tensors[name] = fixed.to(torch.int32)
    return tensors


def counts_of(weights: Tensor) -> Tensor:
    """Positive weights to integer counts of at least 1 that sum to 2**24, symmetric."""
    weights = (weights + weights.flip(0)) / 2
    free = TOTAL - len(weights)
    counts = 1 + torch.floor(weights / weights.sum() * free).long()
    counts[len(weights) // 2] += TOTAL - int(counts.sum())
    return counts


def logistic_weights(index: int, reach: int) -> Tensor:
    """Probabilities of ``-reach..reach`` under the training distribution."""
    spread = float(scale_of_index(torch.tensor(float(index)))) * math.sqrt(3) / math.pi
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    return torch.sigmoid(edges / spread).diff()


def reaches() -> list[int]:
    """Largest residual of each table; 0: nothing is coded."""
    scales = [float(scale_of_index(torch.tensor(float(i)))) for i in range(SCALE_COUNT)]
    return [0 if i == 0 else min(255, math.ceil(8 * s) + 2) for i, s in enumerate(scales)]


def with_tables(tensors: dict[str, Tensor], histograms: list[Tensor] | None) -> dict[str, Tensor]:
    """Add count tables: logistic ones, or logistic plus what was observed."""
    counts = []
    for index, reach in enumerate(reaches()):
        if not reach:
            counts.append(torch.tensor([TOTAL]))
            continue
        weights = logistic_weights(index, reach) * PRIOR_SAMPLES
        if histograms is not None:
            weights = weights + histograms[index]
        counts.append(counts_of(weights))
    return tensors | {
        "table_counts": torch.cat(counts).to(torch.int32),
        "table_reach": torch.tensor(reaches(), dtype=torch.int32),
    }


@torch.no_grad()
def measure_tables(model: LatentCodec, exact: ExactPrior, photos: PhotoBank, batches: int) -> list[Tensor]:
    """Histogram of residuals per scale index over random windows of photographs and rates."""
    reach = exact.reach
    histograms = [torch.zeros(2 * r + 1, dtype=torch.float64) for r in reach]

    def collect(_: int, residual: Tensor, index: Tensor) -> None:
        for i in index.unique().tolist():
            chosen = residual[index == i] + reach[i]
            histograms[i] += torch.bincount(chosen, minlength=2 * reach[i] + 1)

    for _ in range(batches):
        x = photos.windows(8, CROP).originals
        rates = torch.randint(RATE_COUNT, (8,)).tolist()
        rate = torch.tensor(rates) / (RATE_COUNT - 1)
        y = model.analyse(x, rate) * model.gain(rate)
        z = model.prior.hyper_analysis(y)
        walk_values(exact, y, z, rates, collect)
    return histograms


def load_checkpoint(path: Path) -> LatentCodec:
    """The averaged model of a training run."""
    weights = weights_of(path)
    model = LatentCodec(TransformConfig.of(weights), adapter=AdapterConfig.of(weights))
    model.load_state_dict(weights)
    return model.eval()


def packed(name: str, value: Tensor) -> dict[str, Tensor]:
    """A float tensor as shipped: convolutions of the networks, and all matrices of the text adapter, as int8 with a scale
    per output channel, the rest fp16."""
    if value.dim() < (2 if name.startswith("adapter.") else 4) or "linear" in name or "spread" in name:
        return {name: value.half()}
    return int8_channels(name, value)


def export(model: LatentCodec, photos: PhotoBank, batches: int) -> dict[str, Tensor]:
    """All tensors of the shipped model."""
    torch.manual_seed(0)
    integers = integer_prior(model.prior)
    first = with_tables(integers, None)
    exact = ExactPrior(first, model.prior.config)
    tables = with_tables(integers, measure_tables(model, exact, photos, batches))
    tensors = {f"prior.{k}": v for k, v in tables.items()}
    for name, value in model.state_dict().items():
        if name.startswith(
            ("analysis.", "adapter.", "synthesis.", "prior.hyper_in", "prior.hyper_mid", "prior.hyper_out")
        ):
            tensors |= packed(name.replace("prior.", "hyper_analysis.", 1), value)
    tensors["log_gain"] = model.log_gain.detach().float()
    return {k: v.contiguous() for k, v in tensors.items()}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("checkpoint", type=Path, help="averaged weights, or a checkpoint")
    made.add_argument("--photos", type=Path, required=True, help="folder made by training.photos")
    made.add_argument("--batches", type=int, default=60)
    made.add_argument("--command", default="", help="training command, for the manifest")
    add_target_options(made)
    return made


def main() -> None:
    args = parser().parse_args()
    refuse_taken(args, "latent")
    model = load_checkpoint(args.checkpoint)
    tensors = export(model, bank(args.photos, torch.device("cpu"), 7), args.batches)
    about = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": {"command": args.command, **progress(args.checkpoint)},
    }
    print(json.dumps(ship(args.out, "latent", args.model, tensors, about)))


if __name__ == "__main__":
    main()
