# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Training prompts and the captioner on the engine; with the tests' small language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import byte_lm
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from picogram.text.lm.exact_lm import KEY_BITS, VALUE_BITS
from training.command import TrainingRecipe
from training.engine import Every, TrainingEngine, TrainingTask, weights_of
from training.phases import Phase
from training.words.data import Batches, Shuffled, tokenise
from training.words.export_captioner import pack
from training.words.export_text import pack_prompt
from training.words.float_lm import FloatLM
from training.words.train_prompt import Prompt, PromptTask, PromptTexts, prompt_of, written_prompt
from training.words.train_visual import Teaching, VisualTask, load_features, make

PHOTOS, TRAINED = 12, 9


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokens")
    byte_lm.tokens(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def lm() -> FloatLM:
    """One layer. The exact one takes heads for 64 wide, whatever they are."""
    config, tensors = replace(byte_lm.CONFIG, layers=1), dict(byte_lm.tensors())
    scale = tensors["0.qkv.scale"].clone()
    scale[: config.width] *= (config.head_width / 64) ** 0.5
    return FloatLM(tensors | {"0.qkv.scale": scale}, config)


@pytest.fixture
def prompts(lm: FloatLM, tokenizer: Tokenizer) -> Callable[[], PromptTask]:
    """A task on a text that repeats itself."""

    def made() -> PromptTask:
        train = [tokenise(tokenizer, f"a {word} dog") for word in ("red", "blue", "big", "old")] * 3
        prompt = Prompt(written_prompt(lm, tokenizer, "a dog"))
        return PromptTask(prompt, lm, train, train[:4], np.random.default_rng(1), decay=0.002)

    return made


@pytest.fixture
def seeing(lm: FloatLM, tokenizer: Tokenizer) -> Callable[[], VisualTask]:
    """The captioner's task on features of noise; each photo has captions of its own."""

    def made() -> VisualTask:
        torch.manual_seed(2)
        features = np.random.default_rng(3).normal(size=(PHOTOS, 2, 10, 24)).astype(np.float16)
        texts = [[tokenise(tokenizer, f"{i} dogs"), tokenise(tokenizer, f"{i} cats")] for i in range(PHOTOS)]
        model = make(lm, written_prompt(lm, tokenizer, "see"), features, rank=2)
        teaching = Teaching(captions=1, held_out=3)
        return VisualTask(model, features, texts, TRAINED, teaching, np.random.default_rng(1))

    return made


@pytest.mark.parametrize("kind", ["prompts", "seeing"])
def test_a_stopped_run_goes_on_as_it_would_have(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    make_task: Callable[[], TrainingTask] = request.getfixturevalue(kind)
    phases = [Phase(batch=4, steps=4, lr=0.01, lr_end=1e-4, warmup=2, ema=0)]
    every = Every(log=1, judge=2)
    whole = TrainingEngine(make_task(), phases, tmp_path / "whole", every)
    whole.run()
    first = TrainingEngine(make_task(), phases, tmp_path / "run", every)
    step = first.one_step

    def once(phase: Phase) -> object:
        first.stop = True
        return step(phase)

    first.one_step = once  # type: ignore[method-assign, assignment]
    first.run()
    second = TrainingEngine(make_task(), phases, tmp_path / "run", every)
    assert second.step == 1
    second.run()
    assert second.best == whole.best < float("inf")
    now, expected = second.task.model.state_dict(), whole.task.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in now.items())
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_a_prompt_learns_what_texts_are_like_and_ships(
    prompts: Callable[[], PromptTask], tmp_path: Path
) -> None:
    task = prompts()
    before = task.judge(task.model.state_dict())["score"]
    run = TrainingEngine(task, [Phase(batch=4, steps=12, lr=0.1, warmup=1, ema=0)], tmp_path, Every(judge=4))
    run.run()
    assert run.best < before
    prompt = prompt_of(weights_of(tmp_path / "best.safetensors"))
    assert prompt.shape == task.model.start.shape
    integers, shift = pack_prompt(prompt)
    bits = torch.tensor([KEY_BITS, VALUE_BITS])[None, :, None, None]
    back = integers.double() * 2.0 ** shift.double() / 2.0**bits
    assert float((back - prompt).abs().max()) < 0.02 * float(prompt.abs().max())


def test_only_what_sees_learns_and_ships(
    seeing: Callable[[], VisualTask], lm: FloatLM, tmp_path: Path
) -> None:
    task, before = seeing(), {k: v.clone() for k, v in lm.state_dict().items()}
    speeds = [(g["speed"], g["weight_decay"]) for g in task.groups()]
    assert speeds == [(1.0, 0.02), (1.0, 0.0), (4.0, 0.0)]
    first = {k: v.clone() for k, v in task.model.state_dict().items()}
    TrainingEngine(task, [Phase(batch=4, steps=3, lr=0.01, ema=0)], tmp_path).run()
    assert all(torch.equal(v, before[k]) for k, v in lm.state_dict().items())
    changed = {k.split(".")[0] for k, v in task.model.state_dict().items() if not torch.equal(v, first[k])}
    assert changed == {"projector", "prompt", "adapters"}
    shipped = pack(weights_of(tmp_path / "average.safetensors"))
    assert {"projector.first.weight.scale", "adapters.0.qkv.down", "prompt.caption"} <= set(shipped)


def test_judging_leaves_the_model_as_it_is(seeing: Callable[[], VisualTask]) -> None:
    task = seeing()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    worse = {k: v + 1 for k, v in before.items()}
    assert task.judge(worse) != task.judge(before)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert task.model.training


def test_every_text_and_photo_comes_before_one_comes_again(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(1)
    texts = [tokenise(tokenizer, "a" * i) for i in range(1, 13)]
    batches = Batches(texts, rng)
    seen = [batches.next(4) for _ in range(3)]
    assert len({e.ids for group in seen for e in group}) == 12
    assert all(max(e.characters for e in g) - min(e.characters for e in g) <= 6 for g in seen)
    photos = Shuffled(9, rng)
    assert sorted(photos.next(4) + photos.next(5)) == list(range(9))
    with pytest.raises(SystemExit, match="do not fill"):
        batches.next(13)


def test_features_have_the_photo_first_and_the_whole_picture_as_the_first_token(tmp_path: Path) -> None:
    np.save(tmp_path / "pooled.npy", np.full((2, 3, 4), 7, np.float16))
    np.save(tmp_path / "tokens.npy", np.zeros((2, 3, 9, 4), np.float16))
    found = load_features(tmp_path)
    assert found.shape == (3, 2, 10, 4)
    assert (found[:, :, 0] == 7).all()


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("prompt-short", PromptTexts),
        ("prompt-short-mixed", PromptTexts),
        ("prompt-dense", PromptTexts),
        ("captioner", Teaching),
    ],
)
def test_recipes_are_understood(name: str, task: Callable[..., object]) -> None:
    recipe = TrainingRecipe.read(Path(f"training/runs/{name}.json"))
    assert task(**recipe.task)
    (phase,) = recipe.phases
    assert phase.rate(phase.length, 1000) == pytest.approx(0.02 * phase.lr)
