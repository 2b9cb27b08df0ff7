# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The one training loop: phases counted in samples, a learning rate that rises and falls, averaged weights, a
checkpoint from which a run goes on as if it had never stopped.

What is trained is a ``TrainingTask``: a model, and how a batch becomes a loss. A recipe is JSON,
``{"phases": [{...}, ...]}``; see ``Phase``. In ``RUN``: ``last.pt`` (everything), ``average.safetensors`` (averaged
weights, fp16), ``log.jsonl`` (a line for each look at it), ``best.safetensors`` where the task can judge itself, and
averaged weights at the end of each phase in ``phase-N.safetensors`` where there are several.

Nothing in a step asks the device for a number; on CUDA the host runs ahead of it.
"""

from __future__ import annotations

import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.phases import Phase

Weights = dict[str, Tensor]


class TrainingTask(ABC):
    """A model and how it learns. What is random comes from torch and from ``rng``, whose states are kept."""

    def __init__(
        self, model: nn.Module, rng: np.random.Generator, device: torch.device | None = None
    ) -> None:
        self.model, self.rng = model, rng
        self.device = device or torch.device("cpu")

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser; ``speed`` multiplies a group's learning rate."""
        return [{"params": list(self.model.parameters()), "speed": 1.0}]

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), lr=1.0, weight_decay=0.0, fused=True)

    def check(self, phase: Phase) -> None:  # noqa: B027 - as below
        """Raises TypeError or ValueError for settings that the task does not have: before a run, not hours into it."""

    def begin(self, phase: Phase) -> None:  # noqa: B027 - most tasks have nothing to set
        """A phase starts, or goes on after a restart."""

    @abstractmethod
    def loss(self, phase: Phase) -> dict[str, Tensor]:
        """Of a fresh batch: ``loss``, to be descended, and what else is worth a log; scalars on the device."""

    def stepped(self) -> dict[str, Tensor]:
        """After each step, for adversaries and bounds; more for the log."""
        return {}

    def judge(self, average: Weights) -> dict[str, float]:
        """How good averaged weights are; ``score``: lower is better. Empty: the task cannot say."""
        return {}

    def state(self) -> dict[str, Any]:
        """More than model and optimiser, for the checkpoint."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027 - the counterpart of ``state``
        """From the checkpoint."""

    def about(self) -> dict[str, Any]:
        """What readers of the weights need to know beside them; goes into the files of weights."""
        return {}


@dataclass
class Every:
    """How often, in steps or seconds: a line of log, a checkpoint, a judgement (0: never)."""

    log: int = 50
    save_seconds: float = 300.0
    judge: int = 0
    patience: int = 0
    """Judgements without a better score before the run ends; 0: it never does."""


class Means:
    """Sums of what steps report, on the device; not every step reports everything."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: Mapping[str, Tensor]) -> None:
        for name, value in parts.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1

    def take(self) -> dict[str, float]:
        """The means since the last time; waits for the device."""
        found = {k: round(float(total) / count, 5) for k, (total, count) in self.sums.items()}
        self.sums = {}
        return found


class TrainingEngine:
    """A run in progress."""

    def __init__(
        self,
        task: TrainingTask,
        phases: Sequence[Phase],
        out: Path,
        every: Every | None = None,
        light: bool = False,
        seed: int = 1,
    ) -> None:
        """``light``: keep averaged weights only, no checkpoint. A checkpoint in ``out`` is continued."""
        self.task, self.phases, self.out = task, list(phases), out
        for phase in self.phases:
            self._check(phase)
        self.every, self.light = every or Every(), light
        self.average = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
        self.optimiser = task.optimiser()
        self.fused = all(group.get("fused") for group in self.optimiser.param_groups)
        self.step = self.samples = self.phase = self.phase_step = self.warm = self.stale = 0
        self.seconds, self.best, self.stop = 0.0, math.inf, False
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        if (out / "last.pt").exists():
            self.load(out / "last.pt")

    COUNTERS = (
        "step",
        "samples",
        "phase",
        "phase_step",
        "warm",
        "stale",
        "seconds",
        "best",
    )

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do: of the recipe, or of the patience."""
        impatient = self.every.patience and self.stale >= self.every.patience
        return self.phase >= len(self.phases) or bool(impatient)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; it is our own file."""
        state = torch.load(path, map_location=self.task.device, weights_only=False)
        begun = state["phases"][: state["phase"] + 1]
        if begun != [_kind(phase) for phase in self.phases[: len(begun)]]:
            raise ValueError(
                f"{path} is of a run with other phases: take another folder, or the recipe of that run"
            )
        self.task.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.load(state["task"])
        torch.set_rng_state(state["torch"].cpu())
        if self.task.device.type == "cuda" and state.get("cuda") is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.task.device)
        self.task.rng.bit_generator.state = state["numpy"]
        for name in self.COUNTERS:
            setattr(self, name, state[name])
        self._forget()

    def _forget(self) -> None:
        """Drop lines of the log that are younger than the checkpoint: they will be written again."""
        log = self.out / "log.jsonl"
        if log.exists():
            lines = log.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # a last one may have been cut
            scratch = log.with_suffix(".part")
            scratch.write_text("".join(line for line in whole if json.loads(line)["step"] <= self.step))
            scratch.replace(log)

    def save(self) -> None:
        """Write the averaged weights and, unless the run is light, the whole state beside the old one, then swap."""
        self.write("average.safetensors", self.average)
        if self.light:
            return
        device = self.task.device
        state = {name: getattr(self, name) for name in self.COUNTERS} | {
            "phases": [_kind(phase) for phase in self.phases],
            "model": self.task.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "task": self.task.state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "numpy": self.task.rng.bit_generator.state,
        }
        torch.save(state, self.out / "last.pt.part")
        (self.out / "last.pt.part").replace(self.out / "last.pt")

    def write(self, name: str, weights: Weights) -> None:
        """Weights in ``RUN``, fp16, with what the run has done so far."""
        packed = {
            k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in weights.items()
        }
        about = {"step": self.step, "samples": self.samples, "minutes": round(self.seconds / 60, 1)}
        about |= self.task.about()
        save_file(packed, self.out / f"{name}.part", {k: json.dumps(v) for k, v in about.items()})
        (self.out / f"{name}.part").replace(self.out / name)

    def run(self, until: float = math.inf) -> None:
        """Train until the recipe ends, patience does, a signal comes, or ``until`` (seconds since the epoch)."""
        before = signal.signal(signal.SIGTERM, self._end)
        self._looked = self._saved = time.time()
        self._means, self._mark = Means(), self.samples
        try:
            while not self.done and not self.stop and time.time() < until:
                phase = self._begin()
                while self.phase_step < phase.length and not self.stop and time.time() < until:
                    self._means.add(self.one_step(phase))
                    self._look()
                    if self.done:
                        break
                if self.phase_step >= phase.length:
                    self._finish()
            self.seconds += time.time() - self._looked
            self.save()
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def _look(self) -> None:
        """After a step: what is due."""
        every = self.every
        if every.log and self.step % every.log == 0:
            self._log()
        if every.judge and self.step % every.judge == 0:
            self._judge()
        if every.save_seconds and time.time() - self._saved > every.save_seconds:
            self.save()
            self._saved = time.time()

    def _finish(self) -> None:
        """The end of a phase; what the whole recipe led to is judged in any case."""
        if len(self.phases) > 1:
            self.write(f"phase-{self.phase}.safetensors", self.average)
        self.phase, self.phase_step = self.phase + 1, 0
        self.save()
        if self.phase == len(self.phases) and self.every.judge and self.step % self.every.judge:
            self._judge()

    def _check(self, phase: Phase) -> None:
        names = [name for name, _ in self.task.model.named_parameters()]
        for start in phase.freeze:
            if not any(name.startswith(start) for name in names):
                raise ValueError(f"no parameter starts with {start!r}: nothing to freeze")
        self.task.check(phase)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _begin(self) -> Phase:
        phase = self.phases[self.phase]
        model = self.task.model
        if phase.from_average and not self.phase_step:
            model.load_state_dict(self.average)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(phase.freeze) if phase.freeze else True)
        # networks that a task makes here are initialised at random, though a run that goes on has been there before
        devices = [self.task.device] if self.task.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            self.task.begin(phase)
        return phase

    def one_step(self, phase: Phase) -> dict[str, Tensor]:
        """One step of the optimiser; what to log, on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["speed"] * phase.rate(self.phase_step, self.warm)
        parts = self.task.loss(phase)
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        parts["norm"] = self._clip(phase.clip)
        self.optimiser.step()
        parts |= self.task.stepped()
        self._average(phase.ema)
        self.step, self.phase_step, self.warm = self.step + 1, self.phase_step + 1, self.warm + 1
        self.samples += phase.batch
        return {k: v.detach().float() for k, v in parts.items()}

    def _clip(self, most: float) -> Tensor:
        """Bound the gradient; one that is not finite changes nothing, without asking the device whether it is."""
        learning = [p for p in self.task.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(learning, most)
        if self.fused:  # skips the step on the device, moments and decay of weights included
            self.optimiser.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            return norm
        for parameter in learning:
            assert parameter.grad is not None
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        return norm

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        weight = 1 - min(decay, (1 + self.step) / (10 + self.step)) if decay else 1.0
        now = self.task.model.state_dict()
        floats = [k for k, v in now.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floats], [now[k] for k in floats], weight)
        for name in now.keys() - set(floats):
            self.average[name].copy_(now[name])

    def _log(self) -> None:
        means, now = self._means.take(), time.time()
        spent, seen = now - self._looked, self.samples - self._mark
        self.seconds, self._looked, self._mark = self.seconds + spent, now, self.samples
        speed = round(seen / max(spent, 1e-9), 3)
        self._note({"samples": self.samples, "phase": self.phase, "speed": speed, **means})

    def _note(self, entry: Mapping[str, Any]) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), **entry}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{k} {v}" for k, v in line.items()), flush=True)

    def _judge(self) -> None:
        found = self.task.judge(self.average)
        if not found:
            return
        self._note(found)
        self.stale += 1
        if found["score"] < self.best:
            self.best, self.stale = found["score"], 0
            self.write("best.safetensors", self.average)


@contextmanager
def holding(model: nn.Module, weights: Weights) -> Iterator[None]:
    """The model with other weights for a while, as when averaged ones are judged."""
    own = {k: v.detach().clone() for k, v in model.state_dict().items()}
    training = model.training
    model.load_state_dict(weights)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)
        model.train(training)


def _kind(phase: Phase) -> dict[str, Any]:
    """All but its length, which may change between two calls."""
    return {k: v for k, v in asdict(phase).items() if k not in ("samples", "steps")}


def weights_of(path: Path) -> Weights:
    """Averaged weights of a run, from ``average.safetensors`` or a checkpoint."""
    if path.suffix == ".pt":
        found: Weights = torch.load(path, map_location="cpu", weights_only=False)["average"]  # our own file
        return found
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def progress(path: Path) -> dict[str, Any]:
    """Steps, samples and minutes of a run, as far as its file says."""
    if path.suffix == ".pt":
        state = torch.load(path, map_location="cpu", weights_only=False)
        return {k: state[k] for k in ("step", "samples")} | {"minutes": round(state["seconds"] / 60, 1)}
    with safe_open(path, "pt") as file:
        return {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
