# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts of trainings: they run to their end, and every command in them is one that its module takes."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "training" / "scripts"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sh"))
RECORDER = '#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>"$RECORD"\necho >>"$RECORD"\n'


def commands(script: str, tmp_path: Path) -> list[list[str]]:
    """What a script would start with Python, in an empty place where nothing is installed or trained."""
    shutil.copytree(FOLDER, tmp_path / "training" / "scripts")
    for folder in ("scripts", "archives", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "scripts" / "_environment").write_text("environment() { :; }\nmodels() { :; }\n")
    for name in ("photos.tar", "photos1024.tar", "flickr8k.tar"):
        (tmp_path / "archives" / name).touch()
    for name in ("python", "unzip"):
        (tmp_path / "bin" / name).write_text(RECORDER if name == "python" else "#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    more = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "ARCHIVES": str(tmp_path / "archives"),
    }
    kept = {k: v for k, v in os.environ.items() if k not in ("WORK", "OUT", "RUN", "MODEL", "RECIPE")}
    path = tmp_path / "training" / "scripts" / script
    subprocess.run([path], env=kept | more, check=True, capture_output=True, cwd=tmp_path.parent)
    return [line.split("\0")[:-1] for line in (tmp_path / "record").read_text().splitlines()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_is_taken_by_its_module(script: str, tmp_path: Path) -> None:
    found = [words for words in commands(script, tmp_path) if words[:2] != ["-m", "pip"]]
    assert found
    for flag, name, *words in found:
        assert flag == "-m"
        args = importlib.import_module(name).parser().parse_args(words)
        recipe = getattr(args, "recipe", None)
        assert recipe is None or (ROOT / recipe).exists(), recipe


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_on_three_lines_what_it_makes_and_how_long_that_takes(script: str) -> None:
    lines = (FOLDER / script).read_text().splitlines()
    assert os.access(FOLDER / script, os.X_OK)
    assert all(line.startswith("# ") for line in lines[1:6])
    assert not lines[6].startswith("#")
    assert "minutes" in " ".join(lines[3:6])


def test_a_script_without_photographs_says_what_it_needs(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "training" / "scripts")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "_environment").write_text("environment() { :; }\n")
    without = {k: v for k, v in os.environ.items() if k != "ARCHIVES"}
    path = tmp_path / "training" / "scripts" / "latent.sh"
    ran = subprocess.run([path], env=without, capture_output=True, text=True)
    assert ran.returncode
    assert "a folder with photos*.tar" in ran.stderr


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "training").rglob("*.py")
    if "def parser(" in path.read_text() and path.name != "command.py"
)


@pytest.mark.parametrize("module", MODULES)
def test_every_training_explains_its_options(module: str) -> None:
    if module.endswith("validate_captioner"):
        pytest.importorskip("pycocoevalcap")
    assert "--help" in importlib.import_module(module).parser().format_help()
