# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The compose files: valid, in step with code, Dockerfiles and manifests, and each rule notices when it is broken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleet_compose as rules
import fleet_settings
import pytest
import yaml
from fleet_files import ROOT, SERVICES, WORKERS, Doc, compose, merge, of_kind, rendered, run, tool

FILES = ("docker-compose.yml", "compose.gpu.yml")
GPU = {"CAPTIONER_FOLDER": "/srv/captioner"}


@pytest.mark.parametrize("names", [FILES[:1], FILES[1:], FILES], ids=["cpu", "overlay", "both"])
def test_files_follow_the_compose_specification(names: tuple[str, ...], tmp_path: Path) -> None:
    merged: Any = {}
    for name in names:
        merged = merge(merged, yaml.safe_load((ROOT / name).read_text()))
    path = tmp_path / "compose.yml"
    path.write_text(yaml.safe_dump(merged))
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path))
    assert done.returncode == 0, done.stdout


def test_the_specification_is_really_checked(tmp_path: Path) -> None:
    plain = yaml.safe_load((ROOT / FILES[0]).read_text())
    plain["services"]["encoder"]["depends_on"]["valkey"]["condition"] = "service_healhty"
    path = tmp_path / "compose.yml"
    path.write_text(yaml.safe_dump(plain))
    assert run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)).returncode == 1


@pytest.mark.parametrize("names", [FILES[:1], FILES], ids=["cpu", "gpu"])
def test_docker_reads_the_files(names: tuple[str, ...]) -> None:
    if shutil.which("docker") is None or run("docker", "compose", "version").returncode:
        pytest.skip("the compose plugin of docker is not installed")
    files = [part for name in names for part in ("--file", name)]
    done = run("env", "CAPTIONER_FOLDER=/srv", "docker", "compose", *files, "config", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("names", [FILES[:1], FILES], ids=["cpu", "gpu"])
def test_the_files_keep_the_rule(names: tuple[str, ...], rule: Callable[[Doc], list[str]]) -> None:
    assert rule(compose(*names, **GPU)) == []


def test_every_service_has_its_counterpart_on_kubernetes() -> None:
    docs = rendered("cpu-local")
    counterparts = {*of_kind(docs, "Deployment"), *of_kind(docs, "StatefulSet"), *of_kind(docs, "Job")}
    assert counterparts == set(compose()["services"])


def test_the_server_is_open_to_this_machine_only_until_it_has_keys() -> None:
    plain, keyed = compose(), compose(API_KEYS_FILE="./keys", BIND_ADDRESS="0.0.0.0")
    gateway = plain["services"]["gateway"]
    assert gateway["ports"] == ["127.0.0.1:8080:8080"]
    assert fleet_settings.read("gateway", gateway["environment"])["api_keys_file"] is None
    assert (ROOT / plain["secrets"]["api-keys"]["file"]).is_file()
    gateway = keyed["services"]["gateway"]
    assert gateway["ports"] == ["0.0.0.0:8080:8080"]
    (secret,) = gateway["secrets"]
    read = fleet_settings.read("gateway", gateway["environment"])["api_keys_file"]
    assert read == Path("/run/secrets") / secret
    assert keyed["secrets"][secret]["file"] == "./keys"


def test_the_overlay_gives_each_worker_a_gpu_and_a_captioner_to_vllm() -> None:
    services = compose(*FILES, **GPU)["services"]
    for name in SERVICES:
        devices = services[name]["deploy"]["resources"].get("reservations", {}).get("devices", [])
        assert bool(devices) is (name in WORKERS)
        assert services[name]["image"].endswith("-cuda") is (name in WORKERS)
    assert not services["models"]["image"].endswith("-cuda")
    lmm = fleet_settings.read("lmm", services["lmm"]["environment"])
    assert lmm["engine"] == "vllm"
    assert lmm["captioner"] in [v["target"] for v in services["lmm"]["volumes"] if isinstance(v, dict)]


def test_the_overlay_asks_for_the_folder_that_it_needs() -> None:
    with pytest.raises(KeyError, match="CAPTIONER_FOLDER"):
        compose(*FILES)


def _set(path: str, value: Any) -> Callable[[Doc], None]:
    def act(document: Doc) -> None:
        place: Any = document["services"]
        *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = json.loads(json.dumps(value))

    return act


@pytest.mark.parametrize(
    ("rule", "damage"),
    [
        (rules.hardened, _set("encoder/cap_drop", None)),
        (rules.hardened, _set("valkey/image", "valkey/valkey:latest")),
        (rules.hardened, _set("valkey/user", None)),
        (rules.hardened, _set("lmm/deploy/resources/limits/memory", None)),
        (rules.built, _set("decoder/build/dockerfile", "services/encoder/Dockerfile")),
        (rules.built, _set("decoder/build/target", "tpu")),
        (rules.built, _set("lmm/image", "picogram/lmm:0.1.0-cuda")),
        (rules.settings_known, _set("gateway/environment/PICOGRAM_PORTS", "8080")),
        (rules.settings_known, _set("encoder/environment/PICOGRAM_DRAIN_SECONDS", "long")),
        (rules.settings_known, _set("models/environment/PICOGRAM_CACHES", "/models")),
        (rules.drains_in_time, _set("encoder/stop_grace_period", "60s")),
        (rules.reachable, _set("decoder/networks", ["front", "back"])),
        (rules.reachable, _set("valkey/ports", ["6379:6379"])),
        (rules.reachable, _set("gateway/environment/PICOGRAM_PORT", "8081")),
        (rules.reachable, _set("lmm/environment/PICOGRAM_REDIS_URL", "redis://:picogram@redis:6379/0")),
        (rules.reachable, _set("lmm/environment/PICOGRAM_REDIS_URL", "redis://:other@valkey:6379/0")),
        (rules.ordered, _set("lmm/depends_on/models", None)),
        (rules.ordered, _set("lmm/volumes", ["models:/models"])),
        (rules.store_keeps_jobs, _set("valkey/deploy/resources/limits/memory", "1g")),
        (rules.store_keeps_jobs, _set("valkey/command", ["valkey-server"])),
        (rules.threads_fit, _set("encoder/deploy/resources/limits/cpus", "4")),
    ],
)
def test_a_rule_notices_what_breaks_it(
    rule: Callable[[Doc], list[str]], damage: Callable[[Doc], None]
) -> None:
    document = compose()
    damage(document)
    assert rule(document) != []


def test_the_manual_names_settings_that_exist() -> None:
    named = set(re.findall(r"PICOGRAM_[A-Z_]+[A-Z]", (ROOT / "docs/deploy.md").read_text()))
    known = set().union(*(fleet_settings.names(service) for service in SERVICES))
    assert named <= known
    assert "PICOGRAM_DRAIN_SECONDS" in named
    variables = set(re.findall(r"\$\{([A-Z_]+)", "".join((ROOT / name).read_text() for name in FILES)))
    described = (ROOT / "docs/deploy.md").read_text() + (ROOT / "compose.gpu.yml").read_text().partition(
        "x-gpu"
    )[0]
    assert {name for name in variables if name not in described} == set()
