# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles and lock files: tidy, pinned, not root, and in step with the packages and processes that they hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import fleet_settings
import pytest
from fleet_files import ROOT, SERVICES, WORKERS, Stage, clean_environment, dockerfile, project, run, tool
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from prometheus_client import CollectorRegistry

from picogram.workers.health import Health, HealthServer

EXTRAS = {
    "gateway": ("gateway", "queue", "otel"),
    "encoder": ("encoder", "worker", "otel"),
    "decoder": ("decoder", "worker", "otel"),
    "lmm": ("text", "worker", "otel"),
}
LOCKS = (*SERVICES, "lmm-cuda", "torch-cuda", "build")
FINAL = [("gateway", "runtime"), *((name, target) for name in WORKERS for target in ("cpu", "cuda"))]


def lines_of(service: str, target: str) -> list[tuple[str, str]]:
    """Instructions of a stage after those of the stages that it starts from."""
    stages = dockerfile(service)
    stage: Stage | None = stages[target]
    found: list[tuple[str, str]] = []
    while stage is not None:
        found = [*stage.lines, *found]
        stage = stages.get(stage.base)
    return found


def last(service: str, target: str, instruction: str) -> str:
    return next(rest for word, rest in reversed(lines_of(service, target)) if word == instruction)


def argument(service: str, name: str) -> str:
    return next(
        rest.partition("=")[2] for _, rest in dockerfile(service)[""].lines if rest.startswith(f"{name}=")
    )


@lru_cache
def locked(name: str) -> dict[str, str]:
    """Versions in a lock file by the package's name."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return {
        canonicalize_name(match[1]): match[2]
        for match in re.finditer(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    }


def requirements(*extras: str) -> Iterator[Requirement]:
    """What the package needs with these extras, through extras that name extras."""
    declared = project()["project"]
    wanted = [*declared["dependencies"]]
    for extra in extras:
        wanted += declared["optional-dependencies"][extra]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == declared["name"]:
            yield from requirements(*requirement.extras)
        else:
            yield requirement


@pytest.mark.parametrize("service", SERVICES)
def test_dockerfiles_are_tidy(service: str) -> None:
    done = run(tool("hadolint"), "--no-color", f"services/{service}/Dockerfile")
    assert done.returncode == 0, done.stdout


def test_tidiness_is_really_checked(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && sudo pip install x\n")
    assert run(tool("hadolint"), str(tmp_path / "Dockerfile")).returncode == 1


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_starts_from_a_pinned_one(service: str) -> None:
    stages = {name: stage for name, stage in dockerfile(service).items() if name}
    for stage in stages.values():
        assert stage.base in stages or re.search(r":v?\d+\.\d+\.\d+(-[\w-]+)?$", stage.base), stage.base


@pytest.mark.parametrize(("service", "target"), FINAL)
def test_an_image_runs_its_process_without_root(service: str, target: str) -> None:
    assert last(service, target, "USER") == "10001:0"
    assert last(service, target, "STOPSIGNAL") == "SIGTERM"
    python, option, module = json.loads(last(service, target, "ENTRYPOINT"))
    assert (python.removesuffix("3"), option) == ("python", "-m")
    assert find_spec(f"{module}.__main__") is not None
    labels = " ".join(rest for word, rest in lines_of(service, target) if word == "LABEL")
    for label in ("title", "description", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in labels


@pytest.mark.parametrize(("service", "target"), FINAL)
def test_an_image_declares_the_ports_of_the_settings(service: str, target: str) -> None:
    settings = fleet_settings.read(service, {})
    wanted = [settings["port"], 9090] if service == "gateway" else [settings["health_port"]]
    assert last(service, target, "EXPOSE").split() == [str(port) for port in wanted]


@pytest.mark.parametrize(("service", "target"), FINAL)
def test_the_health_check_tells_ready_from_not(service: str, target: str) -> None:
    check = last(service, target, "HEALTHCHECK").partition("CMD ")[2]
    _, option, script = json.loads(check)
    health = Health()
    server = HealthServer(health, CollectorRegistry(), "127.0.0.1", 0)
    name = "PICOGRAM_PORT" if service == "gateway" else "PICOGRAM_HEALTH_PORT"
    environment = {**clean_environment(), name: str(server.port)}
    try:
        codes = []
        for health.warm, health.reachable in ((False, False), (True, True)):
            line = [sys.executable, "-S", option, script]
            codes.append(subprocess.run(line, env=environment, timeout=30, check=False).returncode)
    finally:
        server.close()
    assert codes == [1, 0]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_is_there_and_sent_to_the_builder(service: str) -> None:
    ignored = [rule for rule in (ROOT / ".dockerignore").read_text().splitlines() if rule[0] not in "#*"]
    for stage in dockerfile(service).values():
        for word, rest in stage.lines:
            if word != "COPY" or rest.startswith("--from"):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source.split('/')[0]}" in ignored, source
                assert not any(fnmatch(source, pattern) for pattern in ignored if pattern[0] != "!")


def test_nothing_but_sources_is_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule[0] == "!"} == {
        "LICENSE", "README.md", "pyproject.toml", "requirements", "services", "shared", "web",
    }  # fmt: skip


def test_pins_are_those_of_the_project() -> None:
    pinned = next(r for r in requirements("torch") if r.name == "torch")
    version = project()["project"]["version"]
    for service in SERVICES:
        python = argument(service, "PYTHON").partition("-")[0]
        assert Version(python) in SpecifierSet(project()["project"]["requires-python"])
        assert argument(service, "VERSION") == version
    for service in WORKERS:
        assert Version(argument(service, "TORCH")) in pinned.specifier
    assert Version(locked("torch-cuda")["torch"]) in pinned.specifier
    tested = re.search(r"^VLLM=(\S+)", (ROOT / "scripts/test-vllm").read_text(), re.MULTILINE)
    locking = re.search(r"^VLLM=(\S+)", (ROOT / "requirements/lock").read_text(), re.MULTILINE)
    assert tested
    assert locking
    assert argument("lmm", "VLLM") == f"v{tested[1]}" == f"v{locking[1]}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_lock_file_holds_what_the_extras_ask_for(service: str) -> None:
    for requirement in requirements(*EXTRAS[service]):
        if requirement.name != "torch" and (requirement.marker is None or requirement.marker.evaluate()):
            version = locked(service).get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is missing: run requirements/lock"
            assert Version(version) in requirement.specifier, f"{requirement}: run requirements/lock"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    entries = re.split(r"\n(?=[A-Za-z])", text.strip())
    assert len(entries) == len(locked(name)) > 0
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "index-url" not in text


def test_heavy_packages_are_only_where_they_belong() -> None:
    heavy = re.compile(r"torch|triton|nvidia-.*|cuda-.*|vllm")
    for name in (*SERVICES, "lmm-cuda", "build"):
        assert not [package for package in locked(name) if heavy.fullmatch(package)], name
    assert all(heavy.fullmatch(package) for package in locked("torch-cuda"))
    assert "pip" in locked("lmm"), "models are pulled with it"


def test_lock_files_of_the_fleet_agree() -> None:
    versions: dict[str, set[str]] = {}
    for name in SERVICES:
        for package, version in locked(name).items():
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_the_gateway_starts_without_torch() -> None:
    script = (
        "import sys, picogram_gateway.serve\n"
        "sys.exit(','.join(m for m in ('torch', 'safetensors', 'gguf') if m in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
