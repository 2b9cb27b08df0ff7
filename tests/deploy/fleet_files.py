# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Deployment files as data: compose files with variables filled in, overlays rendered, Dockerfiles read."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("cpu-local", "gpu", "gpu-keda", "hpa")
WORKERS = ("encoder", "decoder", "lmm")
SERVICES = ("gateway", *WORKERS)
Doc = dict[str, Any]

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+)(?:(:[-+?])([^{}]*))?\})")


@lru_cache
def project() -> Doc:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def tool(name: str) -> str:
    """A command installed beside this Python."""
    path = Path(sys.executable).with_name(name)
    assert path.is_file(), f"{name} is missing: install the extra dev"
    return str(path)


def run(*line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@lru_cache
def rendered_text(overlay: str) -> str:
    """An overlay as kubectl would apply it."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, so that overlays cannot be rendered")
    done = run(kubectl, "kustomize", f"deploy/k8s/overlays/{overlay}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@lru_cache
def _parsed(overlay: str) -> list[Doc]:
    return [doc for doc in yaml.safe_load_all(rendered_text(overlay)) if doc]


def rendered(overlay: str) -> list[Doc]:
    """The overlay's objects; each caller gets its own."""
    return copy.deepcopy(_parsed(overlay))


def compose(*names: str, **variables: str) -> Doc:
    """Compose files laid over each other, with ``variables`` and defaults filled in."""
    merged: Doc = {}
    for name in names or ("docker-compose.yml",):
        plain = yaml.safe_load((ROOT / name).read_text())
        merged = merge(merged, {key: value for key, value in plain.items() if not key.startswith("x-")})
    filled = _filled(merged, variables)
    assert isinstance(filled, dict)
    return filled


def merge(below: Any, above: Any) -> Any:
    """As compose does: maps by key, lists one after the other, anything else from above."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [*below, *(key for key in above if key not in below)]
        return {key: merge(below[key], above[key]) if key in below and key in above else
                copy.deepcopy(above.get(key, below.get(key))) for key in keys}  # fmt: skip
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return copy.deepcopy(above)


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        dollar, name, operator, other = match.groups()
        given = variables.get(name or "", "")
        if dollar:
            return "$"
        if operator == ":?" and not given:
            raise KeyError(f"{name} is not set: {other}")
        if operator == ":+":
            return str(other) if given else ""
        return given or (other if operator == ":-" else "")

    return _VARIABLE.sub(fill, value)


@dataclass
class Pod:
    """A pod template, what holds it, and the environment that its containers get."""

    kind: str
    name: str
    owner: Doc
    spec: Doc
    labels: dict[str, str]
    maps: Mapping[str, Mapping[str, str]] = field(repr=False)

    def containers(self) -> Iterator[Doc]:
        yield from self.spec.get("initContainers", [])
        yield from self.spec["containers"]

    def main(self) -> Doc:
        container: Doc = self.spec["containers"][0]
        return container

    def environment(self, container: Doc) -> dict[str, str]:
        """Secrets stand for themselves as their key, limits of resources as 2."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.maps.get(source["configMapRef"]["name"], {})
        for entry in container.get("env", []):
            origin = entry.get("valueFrom")
            value = (
                entry.get("value", "")
                if origin is None
                else "2"
                if "resourceFieldRef" in origin
                else "secret"
            )
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), value)
        return found


def pods(docs: list[Doc]) -> list[Pod]:
    """All pod templates."""
    maps = {doc["metadata"]["name"]: doc.get("data", {}) for doc in docs if doc["kind"] == "ConfigMap"}
    found = []
    for doc in docs:
        if doc["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = doc["spec"]["template"]
            labels = template["metadata"]["labels"]
            found.append(Pod(doc["kind"], doc["metadata"]["name"], doc, template["spec"], labels, maps))
    return found


def of_kind(docs: list[Doc], kind: str) -> dict[str, Doc]:
    """Objects of a kind by name."""
    return {doc["metadata"]["name"]: doc for doc in docs if doc["kind"] == kind}


@dataclass(frozen=True)
class Stage:
    """One FROM of a Dockerfile: its base, its name, and its instructions with the arguments filled in."""

    base: str
    name: str
    lines: tuple[tuple[str, str], ...]

    def last(self, instruction: str) -> str:
        return next((rest for word, rest in reversed(self.lines) if word == instruction), "")


def dockerfile(service: str) -> dict[str, Stage]:
    """Stages by name, in order."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    base = name = ""
    lines: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), rest.strip())
        if word == "ARG" and "=" in rest:
            key, _, value = rest.partition("=")
            arguments[key] = value
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            lines = []
        else:
            lines.append((word, rest))
        if name:
            stages[name] = Stage(base, name, tuple(lines))
    stages[""] = Stage("", "", tuple(("ARG", f"{key}={value}") for key, value in arguments.items()))
    return stages


def clean_environment() -> dict[str, str]:
    """The environment of this process without Picogram's variables."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PICOGRAM_")}
