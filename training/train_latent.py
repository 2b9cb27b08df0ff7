# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the latent codec on packed crops; resumable at any minute.

    python -m training.train_latent --recipe training/runs/latent-01.json --data CROPS --metrics WEIGHTS --out RUN

A recipe is a list of phases, each ``{"minutes" or "steps", "lr", "crop", "batch", "loss": {...}, ...}``; progress,
optimiser, averaged weights and random state live in ``RUN/last.pt``. Loss per sample: bits per pixel +
lambda(rate) x distortion, with lambda log-linear in the sampled rate.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from picogram.latent.guide import Guide
from picogram.latent.model import LatentCodec
from picogram.latent.transforms import klt_of_patches
from training.adversary import Adversary
from training.losses import Distortion, LossWeights


@dataclass
class Phase:
    """One stretch of training with fixed settings; ends after ``minutes`` of training time or ``steps``.

    ``balance``: each sample's loss is divided by lambda to this power, so that coarse rates are heard beside fine ones.
    ``low_rates``: sampled rates are raised to this power; above 1 favours coarse ones. ``rate_only``: the prior alone
    learns, from rounded latents, which is what files hold. ``from_average``: the phase starts from the averaged weights.
    ``adversarial``: weight of the conditional patch discriminator beside the other distortions.
    """

    lr: float = 4e-4
    lr_end: float | None = None
    crop: int = 128
    batch: int = 8
    minutes: float = math.inf
    steps: int = 10**9
    warmup: int = 100
    lambda_low: float = 0.012
    lambda_high: float = 0.5
    balance: float = 0.5
    low_rates: float = 1.0
    clip: float = 4.0
    ema: float = 0.999
    noisy: bool = True
    rate_only: bool = False
    adversarial: float = 0.0
    from_average: bool = False
    freeze: list[str] = field(default_factory=list)
    loss: dict[str, float] = field(default_factory=dict)


class Crops:
    """Random windows, flipped, of a packed split."""

    def __init__(self, folder: Path, split: str, seed: int) -> None:
        size = json.loads((folder / "meta.json").read_text())["size"]
        self.data = np.memmap(folder / f"{split}.u8", np.uint8, "r").reshape(-1, size, size, 3)
        self.random = np.random.default_rng(seed)

    def batch(self, count: int, crop: int) -> Tensor:
        """``[count, 3, crop, crop] float 0..1``."""
        size = self.data.shape[1]
        windows = []
        for index in self.random.integers(len(self.data), size=count):
            top, left = self.random.integers(size - crop + 1, size=2)
            window = self.data[index, top : top + crop, left : left + crop]
            windows.append(window[:, ::-1] if self.random.random() < 0.5 else window)
        pixels = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)
        return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.values = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, decay: float) -> None:
        weight = 1 - min(decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, weight)


PAUSE = 30.0
"""Seconds: a step that seems to take longer was a process on hold, and is not counted in full."""
SPEEDS = {
    "index_base": 100.0,
    "hyper_index": 100.0,
    "hyper_mean": 20.0,
    "log_gain": 10.0,
    "table": 5.0,
    "rate_shift": 5.0,
}
"""Learning rate multipliers of tables: Adam moves every parameter by about its rate a step, whatever its unit, and
scale indices count to 63."""


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by learning rate multiplier."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(SPEEDS.get(name.rsplit(".", 1)[-1], 1.0), []).append(parameter)
    return [{"params": params, "speed": speed} for speed, params in groups.items()]


@dataclass(frozen=True)
class Sample:
    """What one step learns from: pictures ``[B, 3, H, W] 0..1``, and perhaps their captions."""

    pixels: Tensor
    guide: Guide | None = None


class Trainer:
    """Model, optimiser and everything a resumed run needs."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.phases = [Phase(**p) for p in json.loads(args.recipe.read_text())["phases"]]
        self.train = Crops(args.data, "train", args.seed)
        self.model = self.fresh_model().to(self.device, memory_format=torch.channels_last)
        self.average = Average(self.model)
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model), weight_decay=0.0, fused=True)
        self.adversary = Adversary(self.model.log_gain.shape[1], self.device)
        self.step = self.phase_index = self.phase_step = 0
        self.phase_seconds = self.total_seconds = 0.0
        self.samples = 0
        self.cold_steps = 0
        self.path = args.out / "last.pt"
        args.out.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()

    def empty_model(self) -> LatentCodec:
        """With random weights."""
        return LatentCodec()

    def fresh_model(self) -> LatentCodec:
        """What training starts from: the averaged weights of another run, or a linear transform."""
        model = self.empty_model()
        if self.args.start is not None:
            trained = torch.load(self.args.start, map_location="cpu", weights_only=False)  # our own file
            model.load_state_dict(model.state_dict() | trained["average"])
            return model
        patches = torch.cat([self.train.batch(64, 16) for _ in range(400)])
        model.start_from_klt(*klt_of_patches(patches, model.log_gain.shape[1]))
        return model

    def sample(self, phase: Phase) -> Sample:
        """A batch, on the CPU."""
        return Sample(self.train.batch(phase.batch, phase.crop))

    def further(
        self, phase: Phase, sample: Sample, x_hat: Tensor
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """More distortion ``[B]``, weighted, and its unweighted parts for the log."""
        return 0.0, {}

    def _load(self) -> None:
        state = torch.load(self.path, map_location=self.device, weights_only=False)  # our own file
        self.model.load_state_dict(state["model"])
        self.average.values = state["average"]
        if "adversary" in state:
            self.adversary.load(state["adversary"])
        if "optimiser" in state:  # absent in weights that came back from another machine: those warm up again
            self.optimiser.load_state_dict(state["optimiser"])
            self.cold_steps = 10**9
        for name in ("step", "phase_index", "phase_step", "phase_seconds", "total_seconds", "samples"):
            setattr(self, name, state[name])
        self.train.random = np.random.default_rng(self.args.seed + self.step)
        torch.manual_seed(self.args.seed + self.step)

    def save(self) -> None:
        """Write the whole state beside the old one, then swap."""
        names = ("step", "phase_index", "phase_step", "phase_seconds", "total_seconds", "samples")
        state: dict[str, Any] = {name: getattr(self, name) for name in names}
        state |= {"model": self.model.state_dict(), "average": self.average.values}
        state |= {"optimiser": self.optimiser.state_dict(), "adversary": self.adversary.state()}
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def _learning_rate(self, phase: Phase) -> float:
        warm = min(1.0, (min(self.phase_step, self.cold_steps) + 1) / max(1, phase.warmup))
        if phase.lr_end is None:
            return phase.lr * warm
        done = max(self.phase_seconds / 60 / phase.minutes, self.phase_step / phase.steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return warm * (phase.lr_end + (phase.lr - phase.lr_end) * cosine)

    def train_step(self, phase: Phase, distortion: Distortion) -> dict[str, float]:
        """One optimiser step; returns means for the log."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["speed"] * self._learning_rate(phase)
        sample = self.sample(phase)
        x, guide = sample.pixels.to(self.device, non_blocking=True), sample.guide
        rate = (torch.rand(len(x)) + torch.arange(len(x))) / len(x)
        rate = rate.pow(phase.low_rates).to(self.device)
        ratio = phase.lambda_high / phase.lambda_low
        weight = phase.lambda_low * ratio**rate
        with torch.autocast(self.device.type, torch.bfloat16):
            if phase.rate_only:
                with torch.no_grad():
                    y = self.model.analyse(x, rate, guide).float() * self.model.gain(rate)
                bits = self.model.prior(y, rate, noisy=False)[1]
                loss_d, parts = torch.zeros_like(bits), {}
            else:
                y_hat, bits = self.model.latents(x, rate, phase.noisy, guide)
                x_hat = self.model.synthesis(y_hat, rate).float()
                loss_d, parts = distortion(x, x_hat)
                more, others = self.further(phase, sample, x_hat)
                loss_d, parts = loss_d + more, parts | others
                if phase.adversarial:
                    parts["fooling"] = self.adversary.fooling(x_hat, y_hat)
                    loss_d = loss_d + phase.adversarial * parts["fooling"]
        bpp = bits / (x.shape[2] * x.shape[3])
        loss = ((bpp + weight * loss_d) / weight**phase.balance).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), phase.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.model, self.step, phase.ema)
        if phase.adversarial:
            parts["hinge"] = torch.tensor(self.adversary.learn(x, x_hat, y_hat))
        low = bpp[: len(x) // 2].mean().item()
        logs = {"loss": loss.item(), "bpp": bpp.mean().item(), "bpp_low": low, "norm": norm.item()}
        return logs | {name: part.mean().item() for name, part in parts.items()}

    def run(self, until: float) -> None:
        """Train until the recipe ends or ``until`` (seconds since the epoch)."""
        saved = time.time()
        while self.phase_index < len(self.phases) and time.time() < until:
            phase = self.phases[self.phase_index]
            if phase.from_average and not self.phase_step:
                self.model.load_state_dict(self.average.values)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(not any(name.startswith(f) for f in phase.freeze))
            loss_names = {f.name for f in fields(LossWeights)}
            weights = LossWeights(**{k: v for k, v in phase.loss.items() if k in loss_names})  # type: ignore[arg-type]
            distortion = Distortion(self.args.metrics, weights).to(self.device)
            sums: dict[str, float] = {}
            while self.phase_seconds < 60 * phase.minutes and self.phase_step < phase.steps:
                begun = time.time()
                for name, value in self.train_step(phase, distortion).items():
                    sums[name] = sums.get(name, 0.0) + value
                self.step += 1
                self.cold_steps += 1
                self.phase_step += 1
                self.samples += phase.batch
                spent = min(time.time() - begun, PAUSE)
                self.phase_seconds += spent
                self.total_seconds += spent
                if self.step % self.args.log_every == 0:
                    means = " ".join(f"{k} {v / self.args.log_every:.4f}" for k, v in sums.items())
                    print(
                        f"{self.total_seconds / 60:7.1f}m step {self.step} phase {self.phase_index} {means}",
                        flush=True,
                    )
                    sums = {}
                if time.time() - saved > self.args.save_every or time.time() > until:
                    self.save()
                    saved = time.time()
                if time.time() > until:
                    return
            self.phase_index, self.phase_step, self.phase_seconds = self.phase_index + 1, 0, 0.0
            self.save()


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of every run."""
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.pack")
    parser.add_argument("--metrics", type=Path, required=True, help="folder with the LPIPS and DISTS weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a checkpoint whose averaged weights to start from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    return parser


def main() -> None:
    args = arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0])).parse_args()
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
    Trainer(args).run(time.time() + args.stop_after)


if __name__ == "__main__":
    main()
