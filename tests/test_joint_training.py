# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training the joint space: arrays, losses, recalls, stopping and resuming, export; on plain colours and their names."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import byte_lm
import numpy as np
import pytest
import torch
from joint_parts import CONFIG, Colours, heads
from PIL import Image

from picogram.semantics.joint import JointConfig, JointSpace, read_heads, similarity
from training.joint import data, validate
from training.joint.batches import Pairs
from training.joint.data import PICTURES, TEXTS, make_index, write_pictures, write_states
from training.joint.export import export
from training.joint.losses import cell_scores, contrast, whole_scores
from training.joint.train import Recipe, Trainer
from training.joint.validate import beside, mean_recall, measure, photos, recalls
from training.words.data import captioned
from training.words.float_lm import FloatLM

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "black", "white")
COUNT = 40
RECIPE = Recipe(
    epochs=3, batch=16, warmup=1, dropout=0.1, cells=6, image_hidden=24, text_hidden=24, width=16, average=0.5
)


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
    pairs = Pairs(folder, seed=1)
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
    pairs = Pairs(folder, seed=1)
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
    monkeypatch.setattr(data, "load_tokens", lambda: byte_lm.tokens(tmp_path))
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
    recipe = replace(RECIPE, epochs=60, patience=10, lr=3e-3)
    trainer = Trainer(recipe, folder, tmp_path)
    before = mean_recall(trainer.evaluate())
    trainer.run()
    scores = [entry["mean_recall"] for entry in trainer.history]
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"] * 0.9
    assert max(scores) > before
    assert len(scores) == 60 or len(scores) == trainer.best + 1 + 10
    manifest = export(tmp_path, 7, tmp_path, "runs/x.json")
    stored = read_heads(tmp_path / "joint-7.safetensors", JointConfig(**manifest["config"])).eval()
    trainer.average = stored.state_dict()
    assert mean_recall(trainer.evaluate()) == pytest.approx(max(scores), abs=0.15)


def test_a_resumed_run_is_the_same_run(folder: Path, tmp_path: Path) -> None:
    whole = Trainer(RECIPE, folder, tmp_path / "whole")
    whole.run()
    # an interruption: the recipe's rates are those of three epochs, but one was run
    first = Trainer(RECIPE, folder, tmp_path / "parts")
    first.recipe = replace(RECIPE, patience=0)
    first.run()
    assert first.epoch == 1
    second = Trainer(RECIPE, folder, tmp_path / "parts")
    assert second.epoch == 1
    second.run()
    assert second.history == whole.history
    for name, value in whole.average.items():
        torch.testing.assert_close(second.average[name], value)


def test_too_few_photos_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="do not fill a batch"):
        Trainer(replace(RECIPE, batch=64), folder, tmp_path)


# export and measuring


def test_manifest_describes_the_file(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(replace(RECIPE, epochs=1), folder, tmp_path)
    trainer.run()
    scores = {"photos": 4}
    manifest = export(tmp_path, 3, tmp_path, "runs/x.json", scores)
    content = (tmp_path / "joint-3.safetensors").read_bytes()
    assert manifest == json.loads((tmp_path / "joint-3.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["size"] == len(content)
    assert manifest["held_out"] == scores
    assert manifest["training"]["steps"] == trainer.step
    assert JointConfig(**manifest["config"]) == trainer.heads.config
    assert manifest["parameters"] == sum(p.numel() for p in trainer.heads.parameters())
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
