# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training the diffusion model: going on where it was, its recipe, its adversary, its time on a lent machine."""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from diffusion_runs import arguments, photographs
from joint_parts import Colours
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import carrier, command
from training.diffusion import lent, train
from training.diffusion.losses import DiffusionLossWeights, Judged
from training.diffusion.task import DiffusionTask
from training.diffusion.train import engine
from training.engine import TrainingEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("diffusion"))


def task_of(made: TrainingEngine) -> DiffusionTask:
    assert isinstance(made.task, DiffusionTask)
    return made.task


def test_a_stopped_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    args = arguments(folder, tmp_path / "run")
    whole = engine(arguments(folder, tmp_path / "whole"))
    before = {k: v.clone() for k, v in whole.task.model.state_dict().items()}
    assert torch.equal(before["trunk.first.weight"], load_file(args.trunk)["first.weight"])
    whole.run()
    first = engine(args)
    first.phases = first.phases[:1]
    first.run()
    assert (first.step, first.samples) == (2, 4)
    second = engine(args)
    assert (second.step, second.samples, second.phase) == (2, 4, 1)
    second.run()
    assert (second.step, second.samples, second.phase) == (4, 8, 2)
    assert (tmp_path / "run" / "phase-1.safetensors").exists()
    now = second.task.model.state_dict()
    assert all(torch.equal(v, whole.task.model.state_dict()[k]) for k, v in now.items())
    changed = [k for k, v in now.items() if not torch.equal(v, before[k])]
    for part in ("trunk.", "stem.", "from_stem", "from_detail", "from_change", "films", "share"):
        assert any(k.startswith(part) for k in changed), part


def test_the_recipe_that_shipped_sees_as_many_samples_and_one_falling_rate() -> None:
    recipe = command.TrainingRecipe.read(Path("training/runs/diffusion-03.json"))
    first, second = recipe.phases
    assert sum(p.length * p.batch for p in recipe.phases) == 88_384
    middle = (1.5e-4 + 1e-6) / 2
    assert first.rate(first.length, 100) == pytest.approx(second.rate(0, 0)) == pytest.approx(middle)


def test_new_parts_learn_faster_than_published_ones(folder: Path, tmp_path: Path) -> None:
    task = task_of(engine(arguments(folder, tmp_path / "run")))
    old, new = task.groups()
    assert (old["speed"], new["speed"]) == (1.0, 2)
    sizes = sum(p.numel() for group in (old, new) for p in group["params"])
    assert sizes == sum(p.numel() for p in task.model.parameters())


def judged(task: DiffusionTask, adversarial: float) -> None:
    """Put an adversary into the distances, on features that are made of the pictures."""
    plain = task.distances.forward

    def forward(x: Tensor, x_hat: Tensor) -> Judged:
        found = plain(x, x_hat)
        real, fake = (
            [nn.functional.avg_pool2d(v, 8).repeat(1, n // 3 + 1, 1, 1)[:, :n] for n in (128, 256, 512)]
            for v in (x, x_hat)
        )
        return Judged(found.parts, real, fake)

    task.distances.weights = DiffusionLossWeights(lpips=0, dists=0, adversarial=adversarial)
    task.distances.forward = forward  # type: ignore[method-assign]


def test_the_adversarys_gradient_is_the_asked_for_share_of_the_others(folder: Path, tmp_path: Path) -> None:
    made = engine(arguments(folder, tmp_path / "run"))
    task = task_of(made)
    phase = made._begin()
    judged(task, 0.12)
    seen, weigh = list[float](), task._adversary_weight

    def weighed(total: Tensor, fooling: Tensor) -> Tensor:
        weight, last = weigh(total, fooling), task.model.trunk.last.weight
        others, its = (torch.autograd.grad(v, last, retain_graph=True)[0] for v in (total, weight * fooling))
        seen.append(float(its.norm() / others.norm()))
        return weight

    task._adversary_weight = weighed  # type: ignore[method-assign]
    task.loss(phase)["loss"].backward()
    assert seen == [pytest.approx(0.12, rel=0.02)]
    learnt = task.stepped()
    assert float(learnt["opponent"]) > 0
    assert task.looks == 1


def test_the_adversary_and_what_the_banks_hold_are_kept(folder: Path, tmp_path: Path) -> None:
    made = engine(arguments(folder, tmp_path / "run"))
    task = task_of(made)
    phase = made._begin()
    judged(task, 0.12)
    for _ in range(2):
        made.one_step(phase)
    task.moments(torch.rand(3, 8), torch.rand(3, 8))
    made.save()
    other = task_of(engine(arguments(folder, tmp_path / "run")))
    assert torch.equal(other.ratio, task.ratio)
    assert other.looks == task.looks == 2
    assert other.moments.real is not None
    assert torch.equal(other.moments.real, torch.as_tensor(task.moments.real))
    other.begin(phase)
    assert other.distances.moments is other.moments
    a, b = other.adversary.net.state_dict(), task.adversary.net.state_dict()
    assert all(torch.equal(v, b[k]) for k, v in a.items())


def test_a_machine_lent_for_seconds_gets_a_recipe_that_ends_in_time(folder: Path, tmp_path: Path) -> None:
    made = engine(arguments(folder, tmp_path / "run", "--light"))
    before = {k: v.clone() for k, v in made.task.model.state_dict().items()}
    few, many = (carrier.affordable(made, seconds, trial=0) for seconds in (30, 3000))
    assert 1 <= few < many
    assert all(torch.equal(v, before[k]) for k, v in made.task.model.state_dict().items())


def in_one_tar(folder: Path, carry: Path) -> None:
    """As ``training.photos select`` leaves them."""
    for name in ("captions.json", "words.safetensors"):
        shutil.copy(folder / name, carry)
    with tarfile.open(carry / "photos.tar", "w") as to:
        for source in sorted(folder.glob("photos-*.tar")):
            with tarfile.open(source) as tar:
                for member in tar:
                    to.addfile(member, tar.extractfile(member))


def test_a_lent_machine_trains_with_both_loads_and_sends_weights_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole errand on this processor: pack, a rehearsal, a short run on both loads, parts, weights."""
    monkeypatch.setattr(train, "FeatureNet", lambda _: Colours())
    monkeypatch.setattr(lent, "FIRST_BYTES", 60_000)
    carry, metrics, work, out = (tmp_path / name for name in ("carry", "metrics", "work", "out"))
    for made in (carry, metrics, out):
        made.mkdir()
    in_one_tar(folder / "carry", carry)
    lent.random_judges(metrics)
    torch.save({"alpha": torch.ones(1, 1475), "beta": torch.ones(1, 1475)}, metrics / "dists.pt")
    run = arguments(folder, tmp_path / "recipe")
    monkeypatch.setattr(train, "compile_blocks", lambda _: None)
    save_file({"any": torch.zeros(2, 2)}, tmp_path / "features.safetensors")
    text = {k[5:]: v for k, v in engine(run).task.model.state_dict().items() if k.startswith("text.")}
    save_file({k: v.contiguous() for k, v in text.items()}, tmp_path / "text.safetensors")
    lent.pack(
        argparse.Namespace(
            carry=carry,
            metrics=metrics,
            features=tmp_path / "features.safetensors",
            latent=run.latent,
            trunk=run.trunk,
            text=tmp_path / "text.safetensors",
            out=tmp_path / "loads",
            wheels=[],
        )
    )
    first, second = tmp_path / "loads" / "first", tmp_path / "loads" / "second"
    lent.rehearse(first, work, run.recipe, 1)
    words = {"load": second, "work": work, "recipe": run.recipe, "out": out}
    lent.train(argparse.Namespace(**words, seconds=6.0, trial=0.0, compile=False))
    assert len(json.loads((work / "photos" / "photos.json").read_text())) == 5
    back = carrier.join(out, "average", tmp_path / "average.safetensors")
    assert set(back) == set(engine(run).task.model.state_dict())
