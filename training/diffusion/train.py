# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Train the embedded diffusion model on what a frozen latent model makes of photographs; resumable at any step.

    python -m training.diffusion.train --recipe training/runs/diffusion-03.json --photos PHOTOS --latent LATENT \\
        --trunk TRUNK --metrics METRICS --features FEATURES --out RUN (--steps N | --seconds S) [--start WEIGHTS]

``--photos``: made by ``training.photos``; ``--trunk``: by ``training.diffusion.pretrained``. The rate of learning and the
phases follow the share of the run that is done: of steps, or, on a machine lent by the minute, of seconds. The device is
CUDA where there is one. ``RUN/last.pt`` continues; ``RUN/average.safetensors`` holds averaged weights; an averaged
``RUN/phase-N.safetensors`` is left at the end of each phase.
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

from picogram.diffusion.bridge import NOISE, mix
from picogram.diffusion.colour import fix_colour
from picogram.diffusion.model import DiffusionConfig, DiffusionNet
from picogram.diffusion.text import Encoded, WordTable
from picogram.processor import has_fast_bfloat16
from picogram.semantics.features import FeatureNet
from training.diffusion.losses import Adversary, Distances, LossWeights
from training.frozen import FrozenCodec
from training.photos import Batch, PhotoBank

RATIO_EVERY = 20
"""Steps between two looks at how large the adversary's gradient is."""


@dataclass(frozen=True)
class Phase:
    """``until`` which share of the run, 0..1, these weights of the loss hold."""

    until: float
    loss: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """A run. ``fresh``: how many times faster what is new beside the trunk and the stem learns.

    ``captioned``: share of steps on captioned photographs, whose captions are dropped with chance ``drop``; ``later``:
    share of each batch that starts from a prediction instead of from the base picture. Rates are drawn as
    ``top * u ** low``, u uniform.
    """

    phases: list[Phase]
    blocks: int = 8
    batch: int = 32
    crop: int = 256
    lr: float = 1e-4
    lr_end: float = 1e-6
    fresh: float = 3.0
    warmup: int = 100
    ema: float = 0.999
    clip: float = 5.0
    captioned: float = 0.1
    drop: float = 0.3
    later: float = 0.125
    natural: float = 0.6
    top: float = 0.95
    low: float = 1.2
    config: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Recipe:
        raw = json.loads(path.read_text())
        return Recipe(**raw | {"phases": [Phase(**p) for p in raw["phases"]]})


class Trainer:
    """A run in progress."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.recipe = args, Recipe.read(args.recipe)
        self.device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
        torch.manual_seed(args.seed)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        self.rng = np.random.default_rng(args.seed)
        self.photos = PhotoBank(args.photos, self.device, self.rng)
        table = WordTable(load_file(args.photos / "words.safetensors"))
        table.vectors = table.vectors.to(self.device)
        self.table = table
        self.codec: FrozenCodec = _placed(FrozenCodec(args.latent), self.device)
        net = DiffusionNet(DiffusionConfig(blocks=self.recipe.blocks, **self.recipe.config))
        if args.start:
            net.load_state_dict({k: v.float() for k, v in load_file(args.start).items()})
        else:
            start(net, args.trunk, self.codec, args.text)
        self.net: DiffusionNet = _placed(net, self.device)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.features = _placed(FeatureNet(load_file(args.features)), self.device) if args.features else None
        self.optimiser = self._optimiser()
        self.adversary = Adversary(self.device)
        self.step = self.samples = self.phase = 0
        self.seconds, self.ratio, self.stop = 0.0, 0.0, False
        self.distances: Distances | None = None
        if args.compile:
            for block in self.net.trunk.blocks:
                for dense in block.dense:
                    dense.forward = torch.compile(dense.forward, dynamic=False)
        if (args.out / "last.pt").exists():
            self._load(args.out / "last.pt")

    def _optimiser(self) -> torch.optim.Optimizer:
        old = [*self.net.trunk.parameters(), *self.net.stem.parameters()]
        known = set(map(id, old))
        new = [p for p in self.net.parameters() if id(p) not in known]
        groups = [{"params": old, "times": 1.0}, {"params": new, "times": self.recipe.fresh}]
        return torch.optim.Adam(groups, 1.0, (0.9, 0.99), fused=self.device.type == "cuda")

    def done(self) -> float:
        """Share of the run, 0..1."""
        share = self.step / self.args.steps if self.args.steps else self.seconds / self.args.seconds
        return min(1.0, share)

    def _autocast(self) -> torch.autocast:
        enabled = self.device.type == "cuda" or has_fast_bfloat16()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def train_step(self, phase: Phase) -> dict[str, Tensor]:
        """One step; the terms' means, on the device."""
        recipe, rng = self.recipe, self.rng
        captioned = rng.random() < recipe.captioned and any(self.photos.shaped.values())
        if captioned:
            batch = self.photos.captioned(recipe.batch, recipe.drop)
        else:
            batch = self.photos.windows(recipe.batch, recipe.crop, recipe.natural)
        x = batch.originals.contiguous(memory_format=torch.channels_last)
        rate = recipe.top * torch.rand(len(x), device=self.device) ** recipe.low
        base, latent = self.codec(x, rate)
        distances = self._distances(phase)
        with self._autocast():
            prediction = fix_colour(self._predict(base, latent, rate, batch), base)
            judged = distances(x, prediction)
            total = distances.total(judged.parts)
            parts = dict(judged.parts)
            if distances.weights.adversarial:
                parts["fooling"] = self.adversary.fooling(judged.real, judged.fake)
                loss = total + self._adversary_weight(total, parts["fooling"], distances) * parts["fooling"]
            else:
                loss = total
        parts["norm"] = self._descend(loss)
        if distances.weights.adversarial:
            parts["opponent"] = self.adversary.learn(judged.real, judged.fake)
        self.samples += len(x)
        return {"loss": loss.detach()} | {k: v.detach() for k, v in parts.items()}

    def _predict(self, base: Tensor, latent: Tensor, rate: Tensor, batch: Batch) -> Tensor:
        """From the base picture with noise; a few samples from a prediction on the way."""
        text = self.net.encode(self.table.look_up(batch.ids, batch.lengths))
        noise, time_ = torch.randn_like(base), torch.zeros(len(base), device=self.device)
        x = base + NOISE * noise
        count = round(self.recipe.later * len(base))
        if count:
            some = slice(0, count)
            mask = Encoded(text.tokens[some], text.mask[some])
            with torch.no_grad():
                early = self.net(x[some], base[some], latent[some], rate[some], time_[some], mask)
            time_[some] = 0.2 + 0.7 * torch.rand(count, device=self.device)
            x[some] = mix(base[some], noise[some], early.clamp(0, 1), time_[some])
        found: Tensor = self.net(x, base, latent, rate, time_, text)
        return found

    def _distances(self, phase: Phase) -> Distances:
        if self.distances is None:
            made = Distances(self.args.metrics, LossWeights(**phase.loss), self.features)  # type: ignore[arg-type]
            self.distances = made.placed(self.device)
        return self.distances

    def _adversary_weight(self, total: Tensor, fooling: Tensor, distances: Distances) -> float:
        """So that its gradient at the last layer is ``adversarial`` times that of all other terms (VQGAN's rule)."""
        if self.step % RATIO_EVERY == 0 or not self.ratio:
            last = self.net.trunk.last.weight
            ours, theirs = (
                torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (total, fooling)
            )
            fresh = float(ours / (theirs + 1e-8))
            self.ratio = fresh if not self.ratio else 0.8 * self.ratio + 0.2 * fresh
        return distances.weights.adversarial * min(self.ratio, 1e3)

    def _descend(self, loss: Tensor) -> Tensor:
        recipe, done = self.recipe, self.done()
        lr = recipe.lr_end + (recipe.lr - recipe.lr_end) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["times"] * min(1.0, (self.step + 1) / recipe.warmup)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        # a step that is not finite is left out by clipping it to nothing, without asking the device
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip, foreach=True)
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        self.optimiser.step()
        weight = 1 - min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.net.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [now[k] for k in self.average], weight)
        return norm

    def run(self) -> None:
        """Train until the run ends or ``stop`` is set."""
        begun, sums, count, saved = time.time(), dict[str, Tensor](), 0, time.time()
        before = self.seconds
        while self.done() < 1 and not self.stop:
            while self.done() >= self.recipe.phases[self.phase].until:
                self._end_phase()
            for name, value in self.train_step(self.recipe.phases[self.phase]).items():
                sums[name] = sums.get(name, 0) + value.float()
            self.step, count = self.step + 1, count + 1
            self.seconds = before + time.time() - begun
            if self.step % self.args.log_every == 0:
                means = " ".join(f"{k} {float(v) / count:.4f}" for k, v in sums.items())
                speed = self.samples / max(self.seconds, 1e-9)
                print(f"{self.seconds / 60:7.2f}m step {self.step} {speed:.2f}/s {means}", flush=True)
                sums, count = {}, 0
            if time.time() - saved > self.args.save_every:
                self.save()
                saved = time.time()
        self.save()

    def _end_phase(self) -> None:
        self._write(f"phase-{self.phase}.safetensors")
        self.phase = min(self.phase + 1, len(self.recipe.phases) - 1)
        bank = self.distances.moments if self.distances else None
        self.distances = None
        self._distances(self.recipe.phases[self.phase])
        if bank and self.distances:
            self.distances.moments = bank

    def _write(self, name: str) -> None:
        packed = {k: v.half().cpu().contiguous() for k, v in self.average.items()}
        scratch = self.args.out / f"{name}.part"
        save_file(packed, scratch)
        scratch.replace(self.args.out / name)

    def save(self) -> None:
        """Averaged weights, and all that continues the run."""
        self._write("average.safetensors")
        if self.args.light:
            return
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state(),
            "torch": torch.get_rng_state(),
            "numpy": self.rng.bit_generator.state,
            **{k: getattr(self, k) for k in ("step", "samples", "phase", "seconds", "ratio")},
        }
        torch.save(state, self.args.out / "last.pt.part")
        (self.args.out / "last.pt.part").replace(self.args.out / "last.pt")

    def _load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=False)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.adversary.load(state["adversary"])
        torch.set_rng_state(state["torch"].cpu())
        self.rng.bit_generator.state = state["numpy"]
        for key in ("step", "samples", "phase", "seconds", "ratio"):
            setattr(self, key, state[key])


def start(net: DiffusionNet, trunk: Path, codec: FrozenCodec, text: Path | None) -> None:
    """Published weights into the trunk, the codec's synthesis into the stem, an earlier model's words into ``text``."""
    net.trunk.load_state_dict({k: v.float() for k, v in load_file(trunk).items()})
    with torch.no_grad():
        net.start_from_synthesis(codec.net.synthesis.cpu())
    codec.net.synthesis.to(next(codec.net.parameters()).device)
    if text:
        net.text.load_state_dict({k: v.float() for k, v in load_file(text).items()})


def _placed(net: Any, device: torch.device) -> Any:
    return net.to(device, memory_format=torch.channels_last)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("recipe", "photos", "latent", "trunk", "metrics", "out"):
        made.add_argument(f"--{name}", type=Path, required=True)
    made.add_argument("--features", type=Path, help="EfficientNet-Lite0, for terms on its features")
    made.add_argument("--text", type=Path, help="weights of a text encoder to start from")
    made.add_argument("--start", type=Path, help="weights of the whole network to start from")
    made.add_argument("--steps", type=int, help="length of the run")
    made.add_argument("--seconds", type=float, help="length of the run, instead of steps")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--log-every", type=int, default=20)
    made.add_argument("--save-every", type=float, default=300, help="seconds")
    made.add_argument("--light", action="store_true", help="save averaged weights only")
    made.add_argument("--compile", action="store_true", help="compile the dense blocks")
    made.add_argument("--cpu", action="store_true", help="even where there is CUDA")
    return made


def main() -> None:
    args = parser().parse_args()
    if not args.steps and not args.seconds:
        raise SystemExit("--steps or --seconds must say how long the run is")
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args)

    def stop(*_: object) -> None:
        trainer.stop = True

    signal.signal(signal.SIGTERM, stop)
    trainer.run()


if __name__ == "__main__":
    main()
