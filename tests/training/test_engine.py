# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: rates of learning, stopping and going on, averages, patience, steps that are not numbers."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from training.engine import Every, TrainingEngine, TrainingTask, Weights, weights_of
from training.phases import Phase, read_phases, scaled

PHASES = [
    Phase(batch=4, steps=3, lr=0.05, lr_end=0.01, warmup=2, ema=0.8),
    Phase(batch=2, samples=6, lr=0.02, warmup=1, ema=0.5),
]


class Line(TrainingTask):
    """Learns ``y = 2 x + 1`` from noisy points; a point's place comes from NumPy, its noise from torch."""

    def __init__(self, spoilt: tuple[int, ...] = (), fused: bool = True) -> None:
        torch.manual_seed(3)
        super().__init__(nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1)), np.random.default_rng(1))
        self.spoilt, self.is_fused, self.calls, self.begun = spoilt, fused, 0, list[dict[str, Any]]()
        self.scores: list[float] = []

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups(), lr=1.0, weight_decay=0.1, fused=self.is_fused)

    def begin(self, phase: Phase) -> None:
        nn.Linear(3, 3)  # as tasks make networks, with random weights
        self.begun.append(phase.settings)

    def loss(self, phase: Phase) -> dict[str, Tensor]:
        x = torch.from_numpy(self.rng.normal(size=(phase.batch, 1))).float()
        wrong = self.model(x) - (2 * x + 1 + 0.1 * torch.randn_like(x))
        loss = wrong.square().mean()
        if self.calls in self.spoilt:
            loss = loss * torch.tensor(float("nan"))
        self.calls += 1
        found = {"loss": loss}
        return found if self.calls % 2 else found | {"rare": torch.tensor(3.0)}

    def judge(self, average: Weights) -> dict[str, float]:
        return {"score": self.scores.pop(0)} if self.scores else {}

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]

    def about(self) -> dict[str, Any]:
        return {"kind": "line"}


def engine(
    out: Path, phases: list[Phase] | None = None, task: Line | None = None, **more: Any
) -> TrainingEngine:
    return TrainingEngine(task or Line(), phases or PHASES, out, more.pop("every", Every(log=1)), **more)


def copied(weights: Weights) -> Weights:
    return {k: v.detach().clone() for k, v in weights.items()}


def same(a: Weights, b: Weights) -> bool:
    return all(torch.equal(v, b[k]) for k, v in a.items())


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# recipes


def test_the_rate_of_learning_rises_then_falls_on_a_cosine() -> None:
    phase = Phase(batch=1, steps=100, lr=1.0, lr_end=0.2, warmup=10)
    assert [phase.rate(n, n) for n in (0, 4)] == pytest.approx([0.1, 0.5], abs=0.01)
    assert [phase.rate(n, n) for n in (50, 100)] == pytest.approx([0.6, 0.2])
    # an optimiser that starts cold in the middle is warmed up again
    assert phase.rate(50, 0) == pytest.approx(0.06)
    assert Phase(batch=1, steps=100, lr=1.0, warmup=0).rate(70, 70) == 1.0


def test_phases_can_share_one_cosine() -> None:
    whole = Phase(batch=1, steps=100, lr=1.0, lr_end=0.1, warmup=0)
    parts = [Phase(batch=1, steps=50, lr=1.0, lr_end=0.1, warmup=0, arc=a) for a in ((0, 0.5), (0.5, 1))]
    for n in range(0, 100, 7):
        assert parts[n // 50].rate(n % 50, n) == pytest.approx(whole.rate(n, n))


def test_each_phase_has_its_own_rate_and_settings(tmp_path: Path) -> None:
    task = Line()
    phases = [Phase(batch=2, steps=1, lr=0.5, warmup=0, settings={"a": 1}), Phase(batch=2, steps=1, lr=0.25)]
    made = engine(tmp_path, phases, task)
    made.run()
    assert task.begun == [{"a": 1}, {}]
    assert made.optimiser.param_groups[0]["lr"] == pytest.approx(0.25 / 100)


def test_a_recipe_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    row = {"batch": 4, "samples": 10, "freeze": ["0.", "1."], "arc": [0, 0.5], "settings": {"list": [1]}}
    path.write_text(json.dumps({"phases": [row]}))
    (phase,) = read_phases(path)
    assert (phase.length, phase.freeze, phase.arc) == (3, ("0.", "1."), (0, 0.5))
    assert phase.settings == {"list": [1]}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"batch": 1, "steps": 1, "minutes": 3}, TypeError),
        ({"steps": 1}, TypeError),
        ({"batch": 1, "steps": 1, "samples": 1}, ValueError),
        ({"batch": 1}, ValueError),
    ],
)
def test_a_recipe_that_says_too_much_or_too_little_is_refused(
    tmp_path: Path, row: dict[str, Any], error: type[Exception]
) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"phases": [row]}))
    with pytest.raises(error):
        read_phases(tmp_path / "recipe.json")


def test_a_scaled_recipe_keeps_the_shares_of_its_phases() -> None:
    phases = [Phase(batch=4, samples=300), Phase(batch=2, steps=50, lr=0.5), Phase(batch=8, samples=1)]
    found = scaled(phases, 4000)
    assert [p.samples for p in found[:2]] == [round(4000 * n / 408) for n in (300, 100)]
    assert found[1].lr == 0.5
    assert found[2].length >= 1


# stopping and going on


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = engine(tmp_path / "whole")
    whole.run()
    for stop in (2, 3, 4):
        out = tmp_path / f"stopped{stop}"
        first = engine(out)
        step = first.one_step

        def until_then(phase: Phase, of: TrainingEngine = first, last: int = stop, step: Any = step) -> Any:
            found = step(phase)
            of.stop = of.step == last
            return found

        first.one_step = until_then  # type: ignore[method-assign]
        first.run()
        second = engine(out)
        assert (first.step, second.step, second.samples) == (stop, stop, first.samples)
        torch.manual_seed(99)
        second = engine(out)
        second.run()
        assert same(second.task.model.state_dict(), whole.task.model.state_dict())
        assert same(second.average, whole.average)
        states = [e.optimiser.state_dict()["state"] for e in (second, whole)]
        assert all(torch.equal(states[0][i][k], v) for i, s in states[1].items() for k, v in s.items())
        assert torch.equal(torch.load(out / "last.pt")["torch"], torch.load(whole.out / "last.pt")["torch"])
        assert second.task.rng.bit_generator.state == whole.task.rng.bit_generator.state
        kept = ("step", "loss", "samples", "phase")
        assert [[r[k] for k in kept] for r in lines(out)] == [[r[k] for k in kept] for r in lines(whole.out)]


def test_a_run_that_is_over_stays_over(tmp_path: Path) -> None:
    engine(tmp_path).run()
    again = engine(tmp_path)
    assert again.done
    again.run()
    assert again.step == 6


def test_what_was_logged_after_the_checkpoint_is_not_logged_twice(tmp_path: Path) -> None:
    made = engine(tmp_path)
    made.run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7}\n')
    engine(tmp_path)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_being_told_to_end_saves_and_ends(tmp_path: Path) -> None:
    class Told(Line):
        def loss(self, phase: Phase) -> dict[str, Tensor]:
            if self.calls == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(phase)

    before = signal.getsignal(signal.SIGTERM)
    made = engine(tmp_path, task=Told())
    made.run()
    assert made.step == 2
    assert engine(tmp_path).step == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_ends_with_its_time(tmp_path: Path) -> None:
    made = engine(tmp_path)
    made.run(until=0)
    assert made.step == 0
    assert (tmp_path / "last.pt").exists()


def test_a_light_run_keeps_averaged_weights_only(tmp_path: Path) -> None:
    made = engine(tmp_path, light=True, every=Every(log=0))
    made.run()
    assert {p.name for p in tmp_path.iterdir()} == {
        "average.safetensors",
        "phase-0.safetensors",
        "phase-1.safetensors",
    }
    kept = weights_of(tmp_path / "average.safetensors")
    assert all(torch.allclose(v, made.average[k], atol=1e-3) for k, v in kept.items())


# weights


def test_weights_say_where_they_come_from(tmp_path: Path) -> None:
    engine(tmp_path).run()
    with safe_open(tmp_path / "average.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["step"], about["samples"], about["kind"]) == ("6", "18", '"line"')
    checkpoint = weights_of(tmp_path / "last.pt")
    assert all(
        torch.allclose(v, checkpoint[k].half())
        for k, v in load_file(tmp_path / "average.safetensors").items()
    )


def test_averaged_weights_follow_the_weights(tmp_path: Path) -> None:
    made = engine(tmp_path, [Phase(batch=2, steps=9, ema=0.3, warmup=0)])
    expected = copied(made.average)
    for step in range(4):
        made.one_step(made.phases[0])
        weight = 1 - min(0.3, (1 + step) / (10 + step))
        expected = {k: v.lerp(made.task.model.state_dict()[k], weight) for k, v in expected.items()}
    assert all(torch.allclose(v, expected[k]) for k, v in made.average.items())


def test_without_a_decay_averages_are_the_last_weights(tmp_path: Path) -> None:
    made = engine(tmp_path, [Phase(batch=2, steps=3, ema=0)])
    made.run()
    assert same(made.average, made.task.model.state_dict())


def test_a_phase_can_start_from_the_averages_and_hold_some_weights(tmp_path: Path) -> None:
    phases = [PHASES[0], Phase(batch=2, steps=1, lr=0.1, warmup=0, from_average=True, freeze=("0.",))]
    made = engine(tmp_path, phases)
    made._begin()
    for _ in range(3):
        made.one_step(phases[0])
    made._finish()
    average = copied(made.average)
    assert not same(average, made.task.model.state_dict())
    made.run()
    now = made.task.model.state_dict()
    assert torch.equal(now["0.weight"], average["0.weight"])
    assert not torch.equal(now["1.weight"], average["1.weight"])


def test_a_frozen_part_learns_again_in_the_next_phase(tmp_path: Path) -> None:
    phases = [Phase(batch=2, steps=1, freeze=("0.",)), Phase(batch=2, steps=1, warmup=0)]
    made = engine(tmp_path, phases)
    before = copied(made.task.model.state_dict())
    made.run()
    assert not torch.equal(made.task.model.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_that_is_no_number_leaves_the_weights_as_they_are(tmp_path: Path, fused: bool) -> None:
    made = engine(tmp_path, [Phase(batch=2, steps=4, warmup=0)], Line(spoilt=(1,), fused=fused))
    made.one_step(made.phases[0])
    before = copied(made.task.model.state_dict())
    made.one_step(made.phases[0])
    now = made.task.model.state_dict()
    # where the optimiser is not fused, momentum still moves them
    assert same(before, now) == fused
    made.one_step(made.phases[0])
    assert all(bool(v.isfinite().all()) for v in now.values())
    assert not same(before, made.task.model.state_dict())


# judging and the log


def test_patience_ends_the_run_and_the_best_weights_stay(tmp_path: Path) -> None:
    task = Line()
    task.scores = [3.0, 1.0, 2.0, 2.5, 0.0]
    phases = [Phase(batch=2, steps=90, warmup=0)]
    made = engine(tmp_path, phases, task, every=Every(log=0, judge=3, patience=2))
    kept = {}
    judge = task.judge

    def seen(average: Weights) -> dict[str, float]:
        found = judge(average)
        kept[found["score"]] = copied(average)
        return found

    task.judge = seen  # type: ignore[method-assign]
    made.run()
    assert (made.step, made.best) == (12, 1.0)
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(v, kept[1.0][k].half()) for k, v in best.items())
    assert [row["score"] for row in lines(tmp_path)] == [3.0, 1.0, 2.0, 2.5]
    again = engine(tmp_path, phases, Line(), every=Every(log=0, judge=3, patience=2))
    again.run()
    assert again.step == 12


def test_the_end_of_a_recipe_is_judged(tmp_path: Path) -> None:
    task = Line()
    task.scores = [2.0, 1.0]
    made = engine(tmp_path, [Phase(batch=2, steps=5)], task, every=Every(log=0, judge=3))
    made.run()
    assert [(row["step"], row["score"]) for row in lines(tmp_path)] == [(3, 2.0), (5, 1.0)]


def test_what_only_some_steps_report_is_averaged_over_these(tmp_path: Path) -> None:
    engine(tmp_path, [Phase(batch=2, steps=4)], every=Every(log=4)).run()
    (row,) = lines(tmp_path)
    assert row["rare"] == 3.0
    assert row["norm"] > 0


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"batch": 2, "samples": -8}, "samples or steps"),
        ({"batch": 0, "steps": 1}, "one sample at least"),
        ({"batch": 2, "steps": 1, "freeze": "weight"}, "list of names"),
        ({"batch": 2, "steps": 1, "arc": [0]}, "a start and an end"),
    ],
)
def test_a_phase_that_cannot_be_is_refused(raw: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Phase.of(raw)


def test_a_log_whose_last_line_was_cut_does_not_stop_a_run(tmp_path: Path) -> None:
    engine(tmp_path).run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "min')
    again = engine(tmp_path)
    assert again.step > 0
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())


def test_a_folder_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    first = engine(tmp_path)
    first.one_step(first._begin())
    first.save()
    with pytest.raises(ValueError, match="other phases"):
        engine(tmp_path, [replace(PHASES[0], lr=0.1), PHASES[1]])
    assert engine(tmp_path, [PHASES[0], replace(PHASES[1], lr=0.1)]).step == 1  # what is to come may change
