# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The manifests: valid for Kubernetes and KEDA, in step with the code, and each rule notices when it is broken."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import fleet_network
import fleet_rules
import fleet_scaling
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from fleet_files import OVERLAYS, ROOT, WORKERS, Doc, of_kind, pods, rendered, run, tool
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from picogram.workers.health import Health, HealthServer
from picogram_gateway.telemetry import QueueDepth

RELEASE = "1.34"
KEDA_MODELS: dict[str, Any] = {"ScaledObject": ScaledObject, "TriggerAuthentication": TriggerAuthentication}
UNCHECKED = "monitoring.coreos.com/v1"
ALL_RULES = (*fleet_rules.RULES, *fleet_scaling.RULES, fleet_network.problems)


def invalid(docs: list[Doc]) -> list[str]:
    """What Kubernetes itself or KEDA would refuse."""
    found = []
    for doc in docs:
        name = f"{doc['kind']} {doc['metadata']['name']}"
        try:
            if doc["apiVersion"] == "keda.sh/v1alpha1":
                KEDA_MODELS[doc["kind"]].model_validate(doc)
            elif doc["apiVersion"] != UNCHECKED:
                kubernetes_validate.validate(doc, RELEASE, strict=True)
        except (ValidationError, kubernetes_validate.ValidationError) as error:
            found.append(f"{name}: {str(error).splitlines()[0]}")
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(overlay: str) -> None:
    assert invalid(rendered(overlay)) == []


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: f"{rule.__module__}.{rule.__name__}")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_the_rule(overlay: str, rule: Callable[[list[Doc]], list[str]]) -> None:
    assert rule(rendered(overlay)) == []


def test_yaml_is_tidy() -> None:
    done = run(
        tool("yamllint"),
        "-c",
        "tests/deploy/.yamllint",
        "docker-compose.yml",
        "compose.gpu.yml",
        "deploy/k8s",
    )
    assert done.returncode == 0, done.stdout


def test_each_overlay_scales_in_its_own_way() -> None:
    kinds = {overlay: {doc["kind"] for doc in rendered(overlay)} for overlay in OVERLAYS}
    assert {overlay for overlay in OVERLAYS if "ScaledObject" in kinds[overlay]} == {"gpu-keda"}
    assert len(of_kind(rendered("gpu-keda"), "ScaledObject")) == len(WORKERS)
    assert set(WORKERS) < set(of_kind(rendered("hpa"), "HorizontalPodAutoscaler"))
    gpus = [p.name for p in pods(rendered("gpu")) if "nvidia.com/gpu" in p.main()["resources"]["limits"]]
    assert sorted(gpus) == sorted(WORKERS)


def test_probes_of_workers_are_answered() -> None:
    server = HealthServer(Health(), CollectorRegistry(), "127.0.0.1", 0)
    try:
        paths = {
            pod.main()[kind]["httpGet"]["path"]
            for pod in pods(rendered("gpu"))
            if pod.name in WORKERS
            for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        }
        assert {_status(f"http://127.0.0.1:{server.port}{path}") for path in paths} <= {200, 503}
        assert _status(f"http://127.0.0.1:{server.port}/nowhere") == 404
    finally:
        server.close()


def test_probes_of_the_gateway_are_routes() -> None:
    from picogram_gateway.web import router

    (gateway,) = (pod for pod in pods(rendered("gpu")) if pod.name == "gateway")
    paths = {
        gateway.main()[k]["httpGet"]["path"] for k in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths <= {getattr(route, "path", None) for route in router.routes}


def test_the_adapter_serves_the_metric_that_autoscalers_follow() -> None:
    (rule,) = yaml.safe_load((ROOT / "deploy/k8s/overlays/hpa/prometheus-adapter.yaml").read_text())["rules"][
        "external"
    ]
    followed = {
        metric["external"]["metric"]["name"]
        for doc in of_kind(rendered("hpa"), "HorizontalPodAutoscaler").values()
        for metric in doc["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert followed == {rule["name"]["as"]}
    assert re.match(r"\w+", rule["seriesQuery"])[0] == rule["name"]["as"]  # type: ignore[index]
    (exported,) = QueueDepth.__new__(QueueDepth).describe()
    assert (exported.name, exported._labelnames) == (rule["name"]["as"], ("step", "priority"))
    assert "by (step, priority)" in rule["metricsQuery"]


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def _set(kind: str, name: str, path: str, value: Any) -> Callable[[list[Doc]], None]:
    """Put a value at a path such as ``spec.template.spec.containers.0.image``; None takes away what is there."""

    def act(docs: list[Doc]) -> None:
        place: Any = of_kind(docs, kind)[name]
        *way, last = (int(part) if part.isdigit() else part for part in path.replace("~", "\0").split("."))
        for step in way:
            place = place[step.replace("\0", ".") if isinstance(step, str) else step]
        last = last.replace("\0", ".") if isinstance(last, str) else last
        if value is None:
            del place[last]
        else:
            place[last] = json.loads(json.dumps(value))

    return act


def _setting(map_name: str, key: str, value: str) -> Callable[[list[Doc]], None]:
    def act(docs: list[Doc]) -> None:
        (doc,) = (d for n, d in of_kind(docs, "ConfigMap").items() if n.startswith(map_name))
        doc["data"][key] = value

    return act


POD = "spec.template.spec"
C = f"{POD}.containers.0"
R, S = fleet_rules, fleet_scaling
ENCODER, GATEWAY, KEDA = ("Deployment", "encoder"), ("Deployment", "gateway"), ("ScaledObject", "encoder")
BROKEN: list[tuple[Callable[[list[Doc]], list[str]], str, Callable[[list[Doc]], None]]] = [
    (invalid, "gpu", _set(*ENCODER, f"{POD}.terminationGraceSeconds", 90)),
    (invalid, "gpu-keda", _set(*KEDA, "spec.scaleTargetRef", None)),
    (R.hardened, "gpu", _set(*ENCODER, f"{POD}.securityContext.runAsNonRoot", False)),
    (R.hardened, "gpu", _set(*ENCODER, f"{C}.image", "picogram/encoder:latest")),
    (R.hardened, "gpu", _set(*ENCODER, f"{C}.securityContext.readOnlyRootFilesystem", None)),
    (R.hardened, "gpu", _set("Deployment", "lmm", f"{POD}.initContainers.0.resources.limits", {"cpu": "1"})),
    (R.own_version, "gpu", _set(*ENCODER, f"{C}.image", "picogram/encoder:9.9.9-cuda")),
    (R.can_write_where_it_must, "gpu", _set(*ENCODER, f"{C}.volumeMounts", [])),
    (R.settings_known, "gpu", _setting("picogram-worker", "PICOGRAM_MAX_BATCHES", "8")),
    (R.settings_known, "gpu", _setting("picogram-worker", "PICOGRAM_MAX_BATCH", "many")),
    (R.settings_known, "gpu", _set("Job", "models", f"{C}.env.0.name", "PICOGRAM_CACHE_FOLDER")),
    (R.ports_agree, "gpu", _setting("picogram-worker", "PICOGRAM_HEALTH_PORT", "9001")),
    (R.ports_agree, "gpu", _set(*GATEWAY, f"{C}.readinessProbe.httpGet.path", "/ready")),
    (R.ports_agree, "gpu", _set("Service", "gateway", "spec.ports.0.targetPort", "web")),
    (R.job_store_reached, "gpu", _set("Service", "valkey", "spec.ports.0.port", 6380)),
    (R.drains_in_time, "gpu", _setting("picogram-worker", "PICOGRAM_DRAIN_SECONDS", "150")),
    (R.drains_in_time, "gpu", _set(*GATEWAY, f"{C}.lifecycle", None)),
    (R.complete, "gpu", _set(*ENCODER, f"{POD}.serviceAccountName", "other")),
    (R.complete, "gpu", _set("PodDisruptionBudget", "decoder", "spec.selector.matchLabels", {"a": "b"})),
    (R.complete, "gpu", _set("Deployment", "lmm", "metadata.name", "llm")),
    (R.models_only_read, "gpu", _set("Deployment", "lmm", f"{POD}.initContainers", [])),
    (R.models_only_read, "gpu", _set("Job", "models", f"{C}.env.0.value", "/cache")),
    (R.one_namespace, "gpu", _set("Service", "valkey", "metadata.namespace", "default")),
    (S.streams_followed, "gpu-keda", _set(*KEDA, "spec.triggers.0.metadata.stream", "picogram:encoder:high")),
    (S.streams_followed, "gpu-keda", _set(*KEDA, "spec.triggers.0.metadata.consumerGroup", "workers")),
    (S.streams_followed, "gpu-keda", _setting("picogram-fleet", "PICOGRAM_QUEUE_PREFIX", "other")),
    (S.streams_followed, "gpu-keda", _setting("picogram-worker", "PICOGRAM_MAX_BATCH", "4")),
    (S.streams_followed, "gpu-keda", _set(*KEDA, "spec.triggers.1.metadata.address", "valkey:6379")),
    (S.depth_followed, "hpa", _setting("picogram-worker", "PICOGRAM_MAX_TEXT_BATCH", "4")),
    (S.depth_followed, "hpa", _set("HorizontalPodAutoscaler", "lmm", "spec.metrics.0.external.metric.name", "depth")),
    (S.one_decides, "gpu-keda", _set(*ENCODER, "spec.replicas", 3)),
    (S.one_decides, "gpu", _set(*ENCODER, "spec.replicas", None)),
    (S.queues_hold_enough, "gpu-keda", _set(*KEDA, "spec.maxReplicaCount", 100)),
    (S.store_has_room, "gpu", _setting("picogram-valkey", "VALKEY_MAXMEMORY", "2gb")),
    (S.within_quota, "gpu-keda", _set("ScaledObject", "lmm", "spec.maxReplicaCount", 40)),
    (S.within_quota, "gpu", _set(*ENCODER, f"{C}.resources.limits.memory", "65Gi")),
    (S.gpus_reserved, "gpu", _set(*ENCODER, f"{POD}.tolerations", [])),
    (S.gpus_reserved, "cpu-local", _set(*ENCODER, f"{C}.resources.limits.nvidia~com/gpu", "1")),
    (fleet_network.problems, "gpu", _set("NetworkPolicy", "models", "spec.podSelector", {})),
    (fleet_network.problems, "gpu", _set("NetworkPolicy", "valkey", "spec.ingress.0.ports.0.port", 6380)),
    (fleet_network.problems, "gpu", _setting("picogram-gateway", "PICOGRAM_PORT", "8081")),
    (fleet_network.problems, "hpa", _set("NetworkPolicy", "worker-metrics", "spec.ingress", [])),
    (fleet_network.problems, "gpu-keda", _set("NetworkPolicy", "keda-to-valkey", "spec.ingress", [])),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "overlay", "damage"), BROKEN)
def test_a_rule_notices_what_breaks_it(
    rule: Callable[[list[Doc]], list[str]], overlay: str, damage: Callable[[list[Doc]], None]
) -> None:
    docs = rendered(overlay)
    damage(docs)
    assert rule(docs) != []


def test_every_rule_is_known_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} == {invalid, *ALL_RULES}
