# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training the joint space: arrays, losses, recalls, stopping and resuming, export; on plain colours and their names."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import byte_lm
import numpy as np
import pytest
import torch
from joint_parts import CONFIG, Colours, heads
from PIL import Image

from picogram.semantics.joint import JointConfig, JointSpace, read_heads, similarity
from training.command import TrainingRecipe
from training.engine import TrainingEngine
from training.joint import data, validate
from training.joint.batches import PairBatch, Pairs
from training.joint.data import PICTURES, TEXTS, make_index, write_pictures, write_states
from training.joint.export import export
from training.joint.losses import cell_scores, contrast, whole_scores
from training.joint.train import JointTask, engine, parser
from training.joint.validate import beside, mean_recall, measure, photos, recalls
from training.words.data import captioned
from training.words.float_lm import FloatLM

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "black", "white")
COUNT = 40
PHASE = {
    "batch": 16,
    "steps": 6,
    "lr": 1e-3,
    "lr_end": 2e-5,
    "warmup": 1,
    "clip": 5,
    "ema": 0.5,
    "settings": {"cells": 6},
}
SIZES = {"dropout": 0.1, "image_hidden": 24, "text_hidden": 24, "width": 16}


def run_in(out: Path, folder: Path, judge: int = 2, patience: int = 0, **phase: Any) -> TrainingEngine:
    out.mkdir(exist_ok=True)
    recipe = {"judge": judge, "patience": patience, "model": SIZES, "phases": [PHASE | phase]}
    (out / "recipe.json").write_text(json.dumps(recipe))
    words = ["--recipe", str(out / "recipe.json"), "--data", str(folder), "--out", str(out)]
    return engine(parser().parse_args([*words, "--log-every", "2"]))


def looks(out: Path) -> list[dict[str, Any]]:
    """The lines of the log that are judgements."""
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "minutes"} for row in lines if "score" in row]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def two_colours(number: int) -> tuple[str, str]:
    return COLOURS[number % 8], COLOURS[(number // 8 + number + 1) % 8]


def picture(number: int) -> bytes:
    """The left half in one colour, the right in another."""
    left, right = two_colours(number)
    made = Image.new("RGB", (64, 64), left)
    made.paste(right, (32, 0, 64, 64))
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.tar"
    rows = []
    with tarfile.open(path, "w") as file:
        for i in range(COUNT):
            add(file, f"{i:02d}.png", picture(i))
            left, right = two_colours(i)
            captions = [f"{left} {right}", f"{right} beside {left}"]
            rows.append({"file": f"{i:02d}.png", "captions": captions})
        add(file, "captions.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    return path


def float_model() -> FloatLM:
    """The tests' language model for training. The exact one takes heads for 64 wide, whatever they are."""
    config, tensors = replace(byte_lm.CONFIG, layers=CONFIG.layers), dict(byte_lm.tensors())
    scale = tensors["0.qkv.scale"].clone()
    scale[: config.width] *= (config.head_width / 64) ** 0.5
    return FloatLM(tensors | {"0.qkv.scale": scale}, config)


def write_all(tar: Path, out: Path) -> Path:
    """All arrays, by the tests' language model and features."""
    train, held_out = captioned(tar)
    out.mkdir(exist_ok=True)
    index = make_index(train + held_out, len(train), byte_lm.tokens(out), CONFIG.layers)
    (out / "index.json").write_text(json.dumps(index))
    write_states(float_model(), out, index, batch=8)
    write_pictures(Colours(), tar, out, index["files"], batch=8)
    return out


@pytest.fixture(scope="module")
def folder(tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tar, tmp_path_factory.mktemp("arrays"))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> JointSpace:
    tokens = byte_lm.tokens(tmp_path_factory.mktemp("tokens"))
    return JointSpace(Colours(), byte_lm.model(), tokens, heads(), "tiny")


# arrays


def test_training_sees_what_use_sees(folder: Path, tar: Path, space: JointSpace) -> None:
    pairs = Pairs(folder, np.random.default_rng(1))
    train, held_out = captioned(tar)
    assert (pairs.train, pairs.count) == (len(train), COUNT)
    captions = [caption for row in train + held_out for caption in row["captions"]]
    states, mask = pairs.texts(range(len(captions)))
    cached = space.heads.text(states, mask)
    # the one computes in bfloat16, the other in integers
    assert similarity(cached, space.text(captions)).diagonal().min() > 0.99
    pooled, cells = (torch.from_numpy(np.array(a[0])).float() for a in (pairs.pooled, pairs.cells))
    seen = space.image(list(photos(tar, [row["file"] for row in train + held_out])))
    torch.testing.assert_close(space.heads.image(pooled, cells)[0], seen, atol=2e-3, rtol=0)


def test_mirrored_photos_have_mirrored_cells(folder: Path) -> None:
    cells = np.load(folder / "cells.npy").reshape(2, COUNT, 3, 3, -1).astype(np.float32)
    np.testing.assert_allclose(cells[0][:, :, ::-1], cells[1], atol=0.02)
    assert not np.allclose(cells[0], cells[1], atol=0.5)


def test_interrupted_writing_goes_on_where_it_was(
    tar: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(tar, tmp_path)
    (tmp_path / "done.json").write_text(json.dumps({PICTURES: 16, TEXTS: 4}))
    cells, states = (np.load(tmp_path / f"{name}.npy", mmap_mode="r+") for name in ("cells", "states"))
    kept = cells[:, :16].copy()
    cells[:, 16:], states[-20:] = 0, 0
    cells[0, 0] = 1  # is not written again
    del cells, states
    write_all(tar, tmp_path)
    again, whole = (np.load(f / "cells.npy") for f in (tmp_path, folder))
    assert (again[0, 0] == 1).all()
    np.testing.assert_array_equal(again[:, 1:], whole[:, 1:])
    np.testing.assert_array_equal(again[0, 1:16], kept[0, 1:])
    capsys.readouterr()
    write_all(tar, tmp_path)
    assert "photos" not in capsys.readouterr().out  # nothing is left to do


def test_samples_are_of_the_photos_asked_for_and_lose_some_tokens(folder: Path) -> None:
    pairs = Pairs(folder, np.random.default_rng(1))
    numbers = list(range(20))
    batch = pairs.sample(numbers, cells=5, drop_tokens=0.5)
    assert batch.cells.shape[:2] == (20, 5)
    for row, photo in enumerate(numbers):
        pooled, cells = (
            torch.from_numpy(a[:, photo].astype(np.float32)) for a in (pairs.pooled, pairs.cells)
        )
        (variant, *_) = (pooled == batch.pooled[row]).all(1).nonzero().flatten().tolist()
        same = (batch.cells[row][:, None] == cells[variant][None]).all(2)
        assert same.any(1).all()
    whole = pairs.sample(numbers, cells=9, drop_tokens=0.0)
    assert 0.3 < batch.mask.sum() / whole.mask.sum() < 0.8
    assert bool(pairs.sample(numbers, cells=5, drop_tokens=1.0).mask.any(1).all())


def test_a_folder_of_other_captions_is_refused(
    folder: Path, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((folder / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"layers": 9}))
    monkeypatch.setattr(data, "load_tokenizer", lambda: byte_lm.tokens(tmp_path))
    monkeypatch.setattr("sys.argv", ["data", str(tar), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="another folder"):
        data.main()


# losses and scores


def test_contrast_is_least_where_pairs_find_each_other() -> None:
    right = torch.eye(6)
    wrong = right.roll(1, 0)
    assert contrast(9 * right) < contrast(0 * right) < contrast(9 * wrong)
    torch.testing.assert_close(contrast(0 * right), torch.tensor(6.0).log())


def test_one_fitting_cell_is_enough() -> None:
    texts, scale = torch.eye(3), torch.tensor(20.0)
    cells = torch.nn.functional.normalize(torch.ones(2, 4, 3), dim=-1)
    cells[0, 2] = texts[1]
    scores = cell_scores(cells, texts, scale)
    assert scores[0].argmax() == 1
    assert scores[0, 1] > scores[1, 1]
    torch.testing.assert_close(scores[1], scale * cells[1, 0], rtol=0.01, atol=0.01)
    assert whole_scores(texts[:1], texts, scale).tolist() == [[20, 0, 0]]


def test_recalls_count_as_the_protocol_says() -> None:
    owners = torch.tensor([0, 0, 1, 1])
    # photo 0 finds its caption 1 second; photo 1 finds caption 2 first
    scores = torch.tensor([[0.1, 0.6, 0.7, 0.0], [0.2, 0.5, 0.9, 0.0]])
    found = recalls(scores, owners)
    assert found["image_to_text"] == {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0}
    # caption 0 prefers photo 1, caption 3 cannot decide
    assert found["text_to_image"] == {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0}
    assert mean_recall(found) == pytest.approx(5 / 6)


def test_a_space_that_sees_no_difference_finds_nothing() -> None:
    found = recalls(torch.zeros(50, 100), torch.arange(100) // 2)
    assert mean_recall(found) == 0


def test_two_photos_lie_side_by_side() -> None:
    both = beside(Image.new("RGB", (64, 64), "red"), Image.new("RGB", (90, 30), "blue"))
    assert both.size == (64, 64)
    assert both.getpixel((5, 30)) == (255, 0, 0)
    assert both.getpixel((60, 30)) == (0, 0, 255)


# training


def test_training_learns_stops_when_it_no_longer_does_and_keeps_the_best(
    folder: Path, tmp_path: Path
) -> None:
    made = run_in(tmp_path, folder, judge=4, patience=10, steps=120, lr=3e-3, lr_end=6e-5)
    before = made.task.judge(made.average)["mean_recall"]
    made.run()
    seen = looks(tmp_path)
    scores = [row["mean_recall"] for row in seen]
    losses = [json.loads(line).get("loss") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [loss for loss in losses if loss is not None]
    assert found[-1] < found[0] * 0.9
    assert max(scores) > before
    assert len(scores) == 30 or len(scores) == scores.index(max(scores)) + 1 + 10
    manifest = export(tmp_path, 7, tmp_path, "runs/x.json")
    stored = read_heads(tmp_path / "joint-7.safetensors", JointConfig(**manifest["config"])).eval()
    again = made.task.judge(stored.state_dict())["mean_recall"]
    assert again == pytest.approx(max(scores), abs=0.15)


def test_a_resumed_run_is_the_same_run(folder: Path, tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole", folder)
    whole.run()
    first = run_in(tmp_path / "parts", folder)
    first.every.patience = 1
    first.best = -1.0  # no look is good enough: an interruption after the first
    first.run()
    assert first.step == 2
    state = torch.load(tmp_path / "parts" / "last.pt", weights_only=False)
    torch.save(state | {"best": float("inf"), "stale": 0}, tmp_path / "parts" / "last.pt")
    second = run_in(tmp_path / "parts", folder)
    assert second.step == 2
    second.run()
    assert looks(tmp_path / "parts") == looks(tmp_path / "whole")
    for name, value in whole.average.items():
        assert torch.equal(second.average[name], value)


def test_every_photo_is_seen_before_one_is_seen_again(folder: Path, tmp_path: Path) -> None:
    made = run_in(tmp_path, folder, steps=2)
    assert isinstance(made.task, JointTask)
    seen: list[int] = []
    sample = made.task.data.sample

    def noted(photos: Sequence[int], cells: int, drop_tokens: float) -> PairBatch:
        seen.extend(photos)
        return sample(photos, cells, drop_tokens)

    made.task.data.sample = noted  # type: ignore[method-assign]
    made.run()
    assert len(seen) == len(set(seen)) == 32


def test_the_temperature_is_bounded(folder: Path, tmp_path: Path) -> None:
    made = run_in(tmp_path, folder, steps=1)
    with torch.no_grad():
        made.task.model.get_parameter("log_scale").fill_(9.0)
    made.run()
    assert float(made.average["log_scale"].exp()) < 9000
    assert float(made.task.model.get_parameter("log_scale").detach().exp()) == pytest.approx(100)


def test_too_few_photos_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="do not fill a batch"):
        run_in(tmp_path, folder, batch=64).run()


def test_the_recipe_that_shipped_is_thirty_rounds() -> None:
    recipe = TrainingRecipe.read(Path("training/runs/joint-01.json"))
    (phase,) = recipe.phases
    assert phase.steps == 30 * (7281 // phase.batch)
    assert recipe.judge == 7281 // phase.batch


# export and measuring


def test_manifest_describes_the_file(folder: Path, tmp_path: Path) -> None:
    made = run_in(tmp_path, folder, steps=2)
    made.run()
    assert isinstance(made.task, JointTask)
    scores = {"photos": 4}
    manifest = export(tmp_path, 3, tmp_path, "runs/x.json", scores)
    content = (tmp_path / "joint-3.safetensors").read_bytes()
    assert manifest == json.loads((tmp_path / "joint-3.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["size"] == len(content)
    assert manifest["held_out"] == scores
    assert manifest["training"]["steps"] == made.step
    assert JointConfig(**manifest["config"]) == made.task.model.config
    assert manifest["parameters"] == sum(p.numel() for p in made.task.model.parameters())
    again = export(tmp_path, 3, tmp_path, "runs/x.json")
    assert again["sha256"] == manifest["sha256"]


def test_default_heads_are_small_enough() -> None:
    made = heads(config=JointConfig())
    assert sum(parameter.numel() for parameter in made.parameters()) <= 1_500_000


def test_measuring_reports_all_held_out_photos(
    tar: Path, tmp_path: Path, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(space, tar)
    assert (found["photos"], found["captions"], found["model"]) == (4, 8, "tiny")
    assert found["text_to_image"]["recall@5"] == found["image_to_text"]["recall@10"] == 1.0
    assert 0 <= found["pointing"] <= 1
    monkeypatch.setattr(validate, "load_joint", lambda: space)
    out = tmp_path / "scores.json"
    monkeypatch.setattr("sys.argv", ["validate", "--data", str(tar), "--photos", "2", "--out", str(out)])
    validate.main()
    assert json.loads(out.read_text()) == measure(space, tar, 2)
