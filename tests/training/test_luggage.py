# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A working tree that travels: what is left behind, and that all of it comes back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training import luggage

FILES = (
    "a.py",
    "docs/page.md",
    "documents.txt",
    "models/one.safetensors",
    "models/two.safetensors",
    "web/x.js",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(tree: Path) -> set[str]:
    return {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file() and ".git" not in p.parts}


def test_a_slim_tree_keeps_code_and_named_weights_and_comes_back_whole(tree: Path) -> None:
    assert luggage.slim(["models/two.safetensors"]) < 1
    assert files(tree) == {"a.py", "documents.txt", "models/two.safetensors"}
    assert luggage.restore() == 3
    assert files(tree) == set(FILES)
    assert luggage.restore() == 0


def test_work_that_is_not_committed_is_not_touched(tree: Path) -> None:
    (tree / "docs" / "page.md").write_text("more")
    with pytest.raises(SystemExit, match="not committed"):
        luggage.slim([])
    assert files(tree) == set(FILES)


def test_weights_to_keep_have_to_be_there(tree: Path) -> None:
    with pytest.raises(SystemExit, match=r"not a tracked file: models/three"):
        luggage.slim(["models/three.safetensors"])


def test_a_tree_that_is_still_too_large_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luggage, "LIMIT", 4)
    with pytest.raises(SystemExit, match="more than may travel"):
        luggage.slim([])
