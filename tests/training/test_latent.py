# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training of the latent model: photographs, starting, resuming, exporting, carrying; on a few synthetic pictures."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import synthetic
from safetensors.torch import save_file

from picogram.latent.codec import PhotoCodec, load_codec
from picogram.latent.coding import decode_latents, encode_latents
from picogram.latent.latent_codec import LatentCodec
from picogram.latent.prior import Prior, PriorConfig, bounded
from picogram.latent.transforms import interpolate_anchors, klt_of_patches
from picogram.models import DEFAULT_LATENT, latent_weights
from training import carrier, shipping
from training.engine import TrainingEngine, progress, weights_of
from training.latent.export import counts_of, export, load_checkpoint
from training.latent.lent import main as lent_main
from training.latent.losses import Distortion, LatentLossWeights
from training.latent.task import LatentTask, made
from training.latent.train import engine, parser
from training.phases import Phase, read_phases
from training.photos import bank, unpack

CPU = torch.device("cpu")
TRUNK = {"trunk": "depthwise", "trunk_width": 32, "trunk_blocks": 1}
SETTINGS = {"crop": 64, "drop": 0.5, "loss": {"mse": 100, "lpips_alex": 0}}


def carried(folder: Path, count: int = 12) -> Path:
    """A load of synthetic photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "photos-0.tar", "w") as tar:
        for i in range(count):
            buffer = io.BytesIO()
            synthetic(i, 160, 130).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{i:02d}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    unpack(carried(folder / "carry"), folder / "photos", processes=1)
    return folder / "photos"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    phases = [
        {"steps": 3, "batch": 2, "lr": 1e-4, "settings": SETTINGS},
        {"samples": 2, "batch": 2, "settings": SETTINGS | {"rate_only": True}, "freeze": ["analysis"]},
    ]
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"model": {"transforms": TRUNK}, "phases": phases}))
    return path


def run_of(recipe: Path, photos: Path, out: Path, *more: str) -> TrainingEngine:
    words = ["--recipe", recipe, "--photos", photos, "--metrics", photos, "--out", out, "--cpu", *more]
    return engine(parser().parse_args([*map(str, words), "--log-every", "1"]))


def test_a_run_ends_with_weights_that_code_pictures(recipe: Path, photos: Path, tmp_path: Path) -> None:
    run = run_of(recipe, photos, tmp_path / "run", "--start", str(latent_weights(DEFAULT_LATENT)))
    run.run()
    assert (run.phase, run.step, run.samples) == (2, 4, 8)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"mse", "bpp", "norm", "speed"} <= lines[0].keys()
    assert "mse" not in lines[-1]

    path = tmp_path / "run" / "average.safetensors"
    assert progress(path)["samples"] == 8
    codec = PhotoCodec(export(load_checkpoint(path), bank(photos, CPU, 1), batches=1), model=0)
    assert codec.net.synthesis.trunk is not None
    with torch.inference_mode():
        y, z = codec._latents(codec.analyse(np.asarray(synthetic(1, 80, 64))), 128)
    strings, expected = encode_latents(codec.prior, y, z, [128])
    assert torch.equal(decode_latents(codec.prior, strings, [128], *y.shape[2:]), expected)


def test_a_stopped_run_goes_on_where_it_stood(recipe: Path, photos: Path, tmp_path: Path) -> None:
    whole = run_of(recipe, photos, tmp_path / "whole")
    whole.run()
    cut = run_of(recipe, photos, tmp_path / "cut")
    cut.one_step(cut._begin())
    cut.save()
    again = run_of(recipe, photos, tmp_path / "cut")
    assert again.step == 1
    again.run()
    assert again.samples == whole.samples
    for name, value in whole.average.items():
        assert torch.equal(value, again.average[name]), name


def test_a_run_that_starts_from_a_shipped_model_codes_as_that_one_does(photos: Path) -> None:
    model = made({"transforms": TRUNK}, latent_weights(DEFAULT_LATENT), bank(photos, CPU, 1)).eval()
    shipped = load_codec()
    x = torch.from_numpy(np.array(synthetic(3, 64, 64))).permute(2, 0, 1)[None] / 255
    y, rate = torch.randn(1, 128, 4, 4), torch.tensor([0.4])
    with torch.no_grad():
        torch.testing.assert_close(model.synthesis(y, rate), shipped.net.synthesis(y, rate))
        torch.testing.assert_close(model.analysis(x, rate), shipped.net.analysis(x, rate))
    torch.testing.assert_close(model.log_gain, shipped.net.log_gain)


def test_weights_that_lack_more_than_a_trunk_are_refused(photos: Path, tmp_path: Path) -> None:
    weights = {k: v for k, v in LatentCodec().state_dict().items() if not k.startswith("prior.nets.0")}
    save_file(weights, tmp_path / "half.safetensors")
    with pytest.raises(SystemExit, match="lacks prior"):
        made({}, tmp_path / "half.safetensors", bank(photos, CPU, 1))


def test_without_a_start_a_run_begins_with_a_linear_transform_of_the_photographs(photos: Path) -> None:
    model = made({"transforms": TRUNK}, None, bank(photos, CPU, 1)).eval()
    x = torch.from_numpy(np.array(synthetic(900, 64, 64))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        decoded, bits = model(x, torch.tensor([1.0]), noisy=False)
    assert float((x - decoded).square().mean()) < 0.5 * float(x.var())
    assert torch.isfinite(bits).all()


def test_all_phases_are_checked_before_the_first_begins(photos: Path, tmp_path: Path) -> None:
    task = LatentTask(made({}, None, bank(photos, CPU, 1)), bank(photos, CPU, 1), tmp_path)
    good = Phase(2, steps=1, settings={"crop": 64, "loss": {"lpips_alex": 0}})
    for bad, told in (
        (replace(good, settings={"cropp": 64}), "cropp"),
        (replace(good, settings={"loss": {"msee": 1}}), "msee"),
        (replace(good, settings={"crop": 100}), "multiples of 64"),
        (replace(good, freeze=("analysys",)), "nothing to freeze"),
    ):
        with pytest.raises((TypeError, ValueError), match=told):
            TrainingEngine(task, [good, bad], tmp_path / "run")


def test_a_recipe_with_a_slip_of_the_pen_is_refused(recipe: Path, photos: Path, tmp_path: Path) -> None:
    good = json.loads(recipe.read_text())
    for bad, told in (
        (good | {"modle": {}}, "no 'modle'"),
        (good | {"model": {"transform": TRUNK}}, "no 'transform'"),
    ):
        recipe.write_text(json.dumps(bad))
        with pytest.raises(SystemExit, match=told):
            run_of(recipe, photos, tmp_path / "run")


def test_photographs_are_not_lost_by_a_load_that_has_none(photos: Path, tmp_path: Path) -> None:
    before = (photos / "photos.u8").read_bytes()
    with pytest.raises(SystemExit, match="has no photos"):
        unpack(tmp_path, photos, processes=1)
    assert (photos / "photos.u8").read_bytes() == before
    short = tmp_path / "short"
    short.mkdir()
    (short / "photos.json").write_bytes((photos / "photos.json").read_bytes())
    (short / "photos.u8").write_bytes(before[:-1])
    with pytest.raises(SystemExit, match="unpack the photographs again"):
        bank(short, CPU, 1)


def test_parts_that_are_missing_leave_the_target_alone(tmp_path: Path) -> None:
    target = tmp_path / "average.safetensors"
    target.write_bytes(b"kept")
    for names in ((), ("average.1",), ("average.0", "average.2")):
        folder = tmp_path / f"parts{len(names)}"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"x")
        with pytest.raises(SystemExit, match="all parts"):
            carrier.join(folder, "average", target)
    assert target.read_bytes() == b"kept"


def test_a_phase_without_a_gradient_for_the_codec_moves_the_prior_alone(photos: Path, tmp_path: Path) -> None:
    task = LatentTask(
        made({}, latent_weights(DEFAULT_LATENT), bank(photos, CPU, 1)), bank(photos, CPU, 1), tmp_path
    )
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    phases = [{"steps": 2, "batch": 2, "lr": 1e-3, "settings": SETTINGS | {"rate_only": True}}]
    (tmp_path / "r.json").write_text(json.dumps({"phases": phases}))
    TrainingEngine(task, read_phases(tmp_path / "r.json"), tmp_path / "run").run()
    moved = {k.split(".")[0] for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"prior"}


def test_slices_that_are_left_out_cost_nothing_and_leave_their_means() -> None:
    torch.manual_seed(0)
    prior = Prior(PriorConfig(slices=(2, 2, 4), hyper_channels=4, hyper_width=8)).eval()
    y, rate = 4 * torch.randn(3, 8, 4, 4), torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        every, bits = prior(y, rate, noisy=False)
        some, fewer = prior(y, rate, noisy=False, kept=torch.tensor([3, 2, 1]))
    assert torch.equal(some[0], every[0])
    assert torch.equal(some[:2, :4], every[:2, :4])
    assert torch.equal(some[2, :2], every[2, :2])
    assert float((some[1, 4:] - every[1, 4:]).abs().max()) > 1
    assert fewer[0] == bits[0]
    assert fewer[1] < bits[1]
    assert fewer[2] < bits[2]


def test_a_lent_machine_goes_on_with_a_second_load_and_sends_small_parts(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole errand on this processor: pack, two calls of a few steps, parts, weights."""
    carry = carried(tmp_path / "carry", 20)
    (carry / "photos-0.tar").rename(carry / "photos.tar")
    loads = [tmp_path / "first", tmp_path / "second"]
    for load in loads:
        load.mkdir()
    size = (carry / "photos.tar").stat().st_size / 2
    carrier.split_photos(carry / "photos.tar", loads, (size, size))
    work, out = tmp_path / "work", tmp_path / "out"
    names: list[set[str]] = [set(), set()]
    for number, load in enumerate(loads):
        with tarfile.open(load / f"photos-{number}.tar") as tar:
            names[number] = set(tar.getnames())
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]
    start = latent_weights(DEFAULT_LATENT)
    monkeypatch.setattr(carrier, "PART_BYTES", 2**20)
    for load, seconds in zip(loads, ("0.5", "60"), strict=True):
        words = ["lent", "train", load, work, "--recipe", recipe, "--start", start, "--out", out, "--cpu"]
        words += ["--seconds", seconds, "--of", "1", "--trial", "0.2"]
        monkeypatch.setattr("sys.argv", list(map(str, words)))
        lent_main()
    assert max(p.stat().st_size for p in out.iterdir()) <= 2**20
    back = carrier.join(out, "average", tmp_path / "average.safetensors")
    for name, value in weights_of(work / "run" / "average.safetensors").items():
        assert torch.equal(back[name].float(), value.float())
    assert len(json.loads((work / "photos" / "photos.json").read_text())) == len(names[0] | names[1])
    state = torch.load(work / "run" / "last.pt", weights_only=False)
    assert state["phase"] == 2


def test_judges_travel_as_small_integers(tmp_path: Path) -> None:
    kernel = np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)
    tree = {"net": {"Conv_0": {"kernel": kernel, "bias": np.ones(64, np.float32)}}}
    back = carrier.restored(carrier.shrunk(tree))["net"]["Conv_0"]
    assert np.abs(back["kernel"] - kernel).max() <= np.abs(kernel).max() / 127
    assert np.array_equal(back["bias"], tree["net"]["Conv_0"]["bias"])


def test_a_recipe_is_fitted_to_the_seconds_that_are_left(recipe: Path, photos: Path, tmp_path: Path) -> None:
    measured = run_of(recipe, photos, tmp_path / "run", "--start", str(latent_weights(DEFAULT_LATENT)))
    before = {k: v.clone() for k, v in measured.task.model.state_dict().items()}
    run = carrier.fitted(measured, seconds=1000, trial=0.5)
    assert (run.step, run.samples) == (0, 0)
    assert all(torch.equal(v, before[k]) for k, v in run.average.items())
    assert [p.settings for p in run.phases] == [p.settings for p in measured.phases]
    spent, _ = carrier.timed(run, 0, 4)
    assert 0.2 < spent / 4 * sum(p.length for p in run.phases) / 1000 < 5


def test_an_id_that_is_taken_is_refused(tmp_path: Path) -> None:
    made = argparse.ArgumentParser()
    shipping.add_target_options(made)
    words = ["--model", "3", "--out", str(tmp_path)]
    shipping.refuse_taken(made.parse_args(words), "latent")
    shipping.ship(tmp_path, "latent", 3, {"x": torch.zeros(1)}, {})
    with pytest.raises(SystemExit, match=r"latent-3\.safetensors exists"):
        shipping.refuse_taken(made.parse_args(words), "latent")
    shipping.refuse_taken(made.parse_args([*words, "--overwrite"]), "latent")
    shipping.refuse_taken(made.parse_args(words), "diffusion")


def test_squared_error_grows_with_the_error() -> None:
    distortion = Distortion(Path(), LatentLossWeights(lpips_alex=0))
    x = torch.full((2, 3, 32, 32), 0.5)
    near, far = (float(distortion(x, x + d)[0].mean()) for d in (0.01, 0.1))
    assert 0 < near < far


def test_the_klt_packs_energy_into_its_first_components() -> None:
    patches = torch.stack([torch.from_numpy(np.asarray(synthetic(s, 16, 16)) / 255.0) for s in range(200)])
    basis, deviations = klt_of_patches(patches.permute(0, 3, 1, 2), 32)
    flat = basis.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(32), atol=1e-3)
    assert (deviations.diff() <= 1e-6).all()


def test_counts_are_positive_symmetric_and_complete() -> None:
    counts = counts_of(torch.tensor([0.0, 1.0, 50.0, 3.0, 0.5]))
    assert int(counts.sum()) == 2**24
    assert int(counts.min()) >= 1
    assert torch.equal(counts, counts.flip(0))


def test_bounds_keep_the_gradients_that_lead_back() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    bounded(x, 0.0, 1.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


def test_anchor_tables_interpolate_linearly() -> None:
    table = torch.tensor([[0.0], [10.0], [30.0]])
    found = interpolate_anchors(table, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert found.flatten().tolist() == [0.0, 5.0, 10.0, 20.0, 30.0]
