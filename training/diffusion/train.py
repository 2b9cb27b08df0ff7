# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the embedded diffusion model on pairs; resumable at any minute.

    python -m training.diffusion.train --recipe training/runs/diffusion-01.json --data PAIRS --text LM \\
        --metrics WEIGHTS --out RUN

A recipe is a list of phases (``Phase``). Progress, optimisers, averaged weights and random state live in ``RUN/last.pt``,
the averaged weights at the end of phase N in ``RUN/phase-N.safetensors``. Same seed, same run, up to pauses and resumes.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from picogram.diffusion.bridge import mix
from picogram.diffusion.model import DiffusionNet
from picogram.diffusion.text import Encoded, WordTable
from picogram.latent.codec import load_codec
from picogram.semantics.features import FeatureNet
from training.diffusion.data import Batch, Pairs
from training.diffusion.losses import Adversary, Distances, LossWeights, Seen

PAUSE = 30.0
"""Seconds: a step that seems to take longer was a process on hold, and is not counted in full."""


@dataclass
class Phase:
    """One stretch of training; ends after ``minutes`` of training time or ``steps``.

    ``sources``: how often each source is drawn. ``start_share`` of the samples are at time 0, which is all that a single
    step needs; the others at random times, ``own_share`` of them built from the network's own prediction instead of
    the original, as they are in use. ``ease``: steps over which the adversary's weight rises.
    """

    lr: float = 2e-4
    lr_end: float | None = None
    crop: int = 192
    batch: int = 6
    minutes: float = math.inf
    steps: int = 10**9
    warmup: int = 100
    ease: int = 300
    clip: float = 4.0
    ema: float = 0.998
    sources: dict[str, float] = field(default_factory=lambda: {"crops": 1.0})
    drop_captions: float = 0.3
    start_share: float = 0.6
    own_share: float = 0.5
    loss: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Model, optimisers and everything a resumed run needs."""

    counters = ("step", "phase_index", "phase_step", "phase_seconds", "total_seconds", "samples")

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.phases = [Phase(**p) for p in json.loads(args.recipe.read_text())["phases"]]
        self.data = Pairs(args.data, args.seed)
        self.table = WordTable(load_file(args.text))
        net = DiffusionNet()
        net.start_from_synthesis(load_codec().net.synthesis)
        if args.start:
            net.load_state_dict({k: v.float() for k, v in load_file(args.start).items()})
        self.features = None
        if args.features:
            self.features = FeatureNet(load_file(args.features)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net: DiffusionNet = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.adversary = Adversary(self.device)
        self.step = self.phase_index = self.phase_step = self.samples = 0
        self.phase_seconds = self.total_seconds = 0.0
        self.stop = False
        self.path: Path = args.out / "last.pt"
        args.out.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.adversary.load(state["adversary"])
        for name in self.counters:
            setattr(self, name, state[name])
        self.data.random = np.random.default_rng(self.args.seed + self.step)
        torch.manual_seed(self.args.seed + self.step)

    def save(self) -> None:
        """Write the whole state beside the old one, then swap."""
        state: dict[str, Any] = {name: getattr(self, name) for name in self.counters}
        state |= {"net": self.net.state_dict(), "average": self.average}
        state |= {"optimiser": self.optimiser.state_dict(), "adversary": self.adversary.state()}
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def _learning_rate(self, phase: Phase) -> float:
        warm = min(1.0, (self.phase_step + 1) / max(1, phase.warmup))
        if phase.lr_end is None:
            return phase.lr * warm
        done = max(self.phase_seconds / 60 / phase.minutes, self.phase_step / phase.steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return warm * (phase.lr_end + (phase.lr - phase.lr_end) * cosine)

    def _batch(self, phase: Phase) -> Batch:
        names = sorted(phase.sources)
        weights = np.array([phase.sources[n] for n in names])
        name = self.data.random.choice(names, p=weights / weights.sum())
        batch = self.data.batch(str(name), phase.batch, phase.crop, phase.drop_captions)
        return Batch(*(v.to(self.device) for v in vars(batch).values()))

    def _start(self, batch: Batch, text: Encoded, phase: Phase) -> tuple[Tensor, Tensor]:
        """``x_t`` and ``t``."""
        count = len(batch.base)
        time_ = torch.rand(count) * (torch.rand(count) >= phase.start_share)
        time_ = time_.to(self.device)
        noise = torch.randn(batch.base.shape).to(self.device)
        clean = batch.original
        own = (time_ > 0) & (torch.rand(count).to(self.device) < phase.own_share)
        if own.any():
            with torch.no_grad():
                some = Encoded(text.tokens[own], text.mask[own])
                zero = torch.zeros_like(time_[own])
                x = mix(batch.base[own], noise[own], batch.base[own], zero)
                made = self.net(x, batch.base[own], batch.latent[own], batch.rate[own], zero, some)
                made = made.clamp(0, 1)
            clean = clean.clone()
            clean[own] = made
        return mix(batch.base, noise, clean, time_), time_

    def train_step(self, phase: Phase, distances: Distances) -> dict[str, float]:
        """One step of the network and, where it takes part, of the adversary; numbers for the log."""
        weights = distances.weights
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(phase)
        batch = self._batch(phase)
        with torch.autocast(self.device.type, torch.bfloat16):
            text = self.net.encode(self.table.look_up(batch.ids, batch.lengths))
            x, time_ = self._start(batch, text, phase)
            clean = self.net(x, batch.base, batch.latent, batch.rate, time_, text)
            parts, real, fake = distances(batch.original, clean, batch.base)
            if weights.adversarial:
                parts["adversarial"] = self.adversary.fooling(fake)
        ease = min(1.0, self.phase_step / max(1, phase.ease))
        loss = torch.zeros((), device=self.device)
        for name, part in parts.items():
            loss = loss + getattr(weights, name) * (ease if name == "adversarial" else 1.0) * part
        logs = {"loss": loss.item()} | {name: part.item() for name, part in parts.items()}
        logs["norm"] = self._descend(loss, phase)
        if weights.adversarial:
            logs["hinge"] = self.adversary.learn(real, _as_float(fake))
        return logs

    def _descend(self, loss: Tensor, phase: Phase) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), phase.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            weight = 1 - min(phase.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for key, value in self.net.state_dict().items():
                    self.average[key].lerp_(value, weight)
        return float(norm)

    def run(self, until: float) -> None:
        """Train until the recipe ends, ``until`` (seconds since the epoch), or ``stop`` is set."""
        while self.phase_index < len(self.phases) and not self.stop:
            phase = self.phases[self.phase_index]
            distances = Distances(self.args.metrics, LossWeights(**phase.loss), self.features)  # type: ignore[arg-type]
            distances = distances.to(self.device)
            if not self._phase(phase, distances, until):
                return
            packed = {k: v.contiguous() for k, v in self.average.items()}
            save_file(packed, self.args.out / f"phase-{self.phase_index}.safetensors")
            self.phase_index, self.phase_step, self.phase_seconds = self.phase_index + 1, 0, 0.0
            self.save()

    def _phase(self, phase: Phase, distances: Distances, until: float) -> bool:
        """Whether the phase came to its end."""
        saved, sums, summed = time.time(), dict[str, float](), 0
        while self.phase_seconds < 60 * phase.minutes and self.phase_step < phase.steps:
            begun = time.time()
            for name, value in self.train_step(phase, distances).items():
                sums[name] = sums.get(name, 0.0) + value
            summed += 1
            spent = min(time.time() - begun, PAUSE)
            self.step, self.phase_step = self.step + 1, self.phase_step + 1
            self.samples += phase.batch
            self.phase_seconds, self.total_seconds = self.phase_seconds + spent, self.total_seconds + spent
            if self.step % self.args.log_every == 0:
                means = " ".join(f"{k} {v / summed:.4f}" for k, v in sums.items())
                head = f"{self.total_seconds / 60:7.1f}m step {self.step} phase {self.phase_index}"
                print(head, means, flush=True)
                sums, summed = {}, 0
            ends = self.stop or time.time() > until
            if ends or time.time() - saved > self.args.save_every:
                self.save()
                saved = time.time()
            if ends:
                return False
        return True


def _as_float(seen: Seen) -> Seen:
    return Seen(seen.picture.float(), seen.features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.diffusion.pairs")
    parser.add_argument("--text", type=Path, required=True, help="safetensors of the embedded language model")
    parser.add_argument("--metrics", type=Path, required=True, help="folder with the LPIPS and DISTS weights")
    parser.add_argument(
        "--features", type=Path, help="safetensors of EfficientNet-Lite0, for terms on its features"
    )
    parser.add_argument(
        "--start", type=Path, help="safetensors to begin from instead of the codec's synthesis"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    args = parser.parse_args()
    trainer = Trainer(args)

    def stop(*_: object) -> None:
        trainer.stop = True

    signal.signal(signal.SIGTERM, stop)
    trainer.run(time.time() + args.stop_after)


if __name__ == "__main__":
    main()
