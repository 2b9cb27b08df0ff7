# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What must hold of Kubernetes objects; each rule takes the objects of an overlay and returns what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import fleet_settings
from fleet_files import SERVICES, WORKERS, Doc, Pod, of_kind, pods, project

GIVEN_SECRETS = ("picogram-redis", "picogram-api-keys")
"""Secrets that a person makes."""
GIVEN_CLAIMS = ("captioner",)
SPARE_SECONDS = 30
Rule = Callable[[list[Doc]], list[str]]


def hardened(docs: list[Doc]) -> list[str]:
    """Pod security standard restricted, a read-only root, no token, limits."""
    found = []
    for pod in pods(docs):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            found.append(f"{pod.name}: may run as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(f"{pod.name}: no seccomp profile")
        if pod.spec.get("automountServiceAccountToken") is not False:
            found.append(f"{pod.name}: gets a token of the Kubernetes API")
        for container in pod.containers():
            found += [f"{pod.name}/{container['name']}: {what}" for what in _hardened(container)]
    return found


def _hardened(container: Doc) -> list[str]:
    context = container.get("securityContext", {})
    resources = container.get("resources", {})
    wanted = {
        "privileges may grow": context.get("allowPrivilegeEscalation") is False,
        "the root file system can be written": context.get("readOnlyRootFilesystem") is True,
        "keeps capabilities": context.get("capabilities", {}).get("drop") == ["ALL"],
        "image without a pinned tag": bool(re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", container["image"])),
        **{
            f"no {kind} of {what}": what in resources.get(kind, {})
            for kind in ("requests", "limits")
            for what in ("cpu", "memory")
        },
    }
    return [what for what, well in wanted.items() if not well]


def own_version(docs: list[Doc]) -> list[str]:
    """The images are those of this version."""
    version = project()["project"]["version"]
    images = {container["image"] for pod in pods(docs) for container in pod.containers()}
    ours = sorted(image for image in images if image.startswith("picogram/"))
    return [
        f"{image} is not version {version}" for image in ours if image.split(":")[1].split("-")[0] != version
    ]


def can_write_where_it_must(docs: list[Doc]) -> list[str]:
    """/tmp everywhere, and the home of our images."""
    found = []
    for pod in pods(docs):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        scratch = {
            mount["mountPath"]
            for mount in pod.main()["volumeMounts"]
            if "emptyDir" in volumes.get(mount["name"], {})
        }
        wanted = {"/tmp"} | ({"/home/app"} if pod.main()["image"].startswith("picogram/") else set())
        found += [f"{pod.name}: {folder} cannot be written" for folder in sorted(wanted - scratch)]
    return found


def settings_known(docs: list[Doc]) -> list[str]:
    """The code knows every variable and can read its value."""
    found = []
    for pod in pods(docs):
        if pod.name in SERVICES:
            found += fleet_settings.problems(pod.name, pod.environment(pod.main()))
        for container in pod.containers():
            if pod.name not in SERVICES or container is not pod.main():
                ours = {key for key in pod.environment(container) if key.startswith("PICOGRAM_")}
                strange = ours - {fleet_settings.CACHE}
                found += [f"{pod.name}/{container['name']}: nobody reads {name}" for name in sorted(strange)]
    return found


def ports_agree(docs: list[Doc]) -> list[str]:
    """Container ports are those of the settings; probes and services name them."""
    found = []
    for pod in (pod for pod in pods(docs) if pod.name in SERVICES):
        settings = fleet_settings.read(pod.name, pod.environment(pod.main()))
        wanted = ["port", "metrics_port"] if pod.name == "gateway" else ["health_port"]
        declared = {port["name"]: port["containerPort"] for port in pod.main().get("ports", [])}
        if sorted(declared.values()) != sorted(settings[name] for name in wanted):  # type: ignore[type-var]
            found.append(f"{pod.name}: listens on {[settings[n] for n in wanted]}, declares {declared}")
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = pod.main().get(kind, {}).get("httpGet", {})
            path = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}[kind]
            port = "http" if pod.name == "gateway" else "health"
            if (probe.get("path"), probe.get("port")) != (path, port) or port not in declared:
                found.append(f"{pod.name}: {kind} asks {probe}")
    return found + _services(docs)


def _services(docs: list[Doc]) -> list[str]:
    found = []
    for name, service in of_kind(docs, "Service").items():
        behind = [pod for pod in pods(docs) if service["spec"]["selector"].items() <= pod.labels.items()]
        offered = {port["name"] for pod in behind for port in pod.main()["ports"]}
        found += [
            f"service {name}: nobody offers port {port['targetPort']}"
            for port in service["spec"]["ports"]
            if port["targetPort"] not in offered
        ]
    return found


def job_store_reached(docs: list[Doc]) -> list[str]:
    """The URL in the settings is the service of the job store."""
    found = []
    stores = of_kind(docs, "Service")
    for pod in (pod for pod in pods(docs) if pod.name in SERVICES):
        url = urlsplit(pod.environment(pod.main()).get("PICOGRAM_REDIS_URL", ""))
        ports = [port["port"] for port in stores.get(str(url.hostname), {}).get("spec", {}).get("ports", [])]
        if url.port not in ports or url.password != "secret":
            found.append(f"{pod.name}: no job store at {url.hostname}:{url.port}")
    return found


def drains_in_time(docs: list[Doc]) -> list[str]:
    """Nobody is killed before the time that the code takes to end."""
    found = []
    for pod in (pod for pod in pods(docs) if pod.name in SERVICES):
        drain = fleet_settings.read(pod.name, pod.environment(pod.main()))["drain_seconds"]
        stop = pod.main().get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert isinstance(drain, float)
        if pod.spec.get("terminationGracePeriodSeconds", 30) < stop + drain + SPARE_SECONDS:
            found.append(f"{pod.name}: is killed before it can drain ({drain:g} s)")
        if pod.name == "gateway" and stop < 5:
            found.append("gateway: ends before the endpoints know")
    return found


def complete(docs: list[Doc]) -> list[str]:
    """Every service has its deployment, budget and account; whatever is referred to exists."""
    found = []
    deployments = of_kind(docs, "Deployment")
    found += [f"no deployment {name}" for name in SERVICES if name not in deployments]
    budgets = of_kind(docs, "PodDisruptionBudget").values()
    for pod in pods(docs):
        found += [f"{pod.name}: {what} is missing" for what in _missing(pod, docs)]
        selector = pod.owner["spec"].get("selector", {}).get("matchLabels", {})
        if not selector.items() <= pod.labels.items():
            found.append(f"{pod.name}: does not select its own pods")
        for spread in pod.spec.get("topologySpreadConstraints", []):
            if not spread["labelSelector"]["matchLabels"].items() <= pod.labels.items():
                found.append(f"{pod.name}: is spread by other pods")
        budgeted = any(b["spec"]["selector"]["matchLabels"].items() <= pod.labels.items() for b in budgets)
        if pod.kind != "Job" and not budgeted:
            found.append(f"{pod.name}: has no disruption budget")
    if any(pod.name in WORKERS and not pod.spec.get("topologySpreadConstraints") for pod in pods(docs)):
        found.append("a worker is not spread over nodes")
    return found


def _missing(pod: Pod, docs: list[Doc]) -> list[str]:
    def known(kind: str, *given: str) -> set[str]:
        return {*of_kind(docs, kind), *given}

    wanted = [("ServiceAccount", pod.spec.get("serviceAccountName", "default"))]
    for container in pod.containers():
        wanted += [("ConfigMap", source["configMapRef"]["name"]) for source in container.get("envFrom", [])]
        for entry in container.get("env", []):
            if secret := entry.get("valueFrom", {}).get("secretKeyRef"):
                wanted.append(("Secret", secret["name"]))
    for volume in pod.spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        if "secret" in volume:
            wanted.append(("Secret", volume["secret"]["secretName"]))
    given = {"Secret": GIVEN_SECRETS, "PersistentVolumeClaim": GIVEN_CLAIMS}
    return [f"{kind} {name}" for kind, name in wanted if name not in known(kind, *given.get(kind, ()))]


def models_only_read(docs: list[Doc]) -> list[str]:
    """Only the job writes the model cache, the language-model worker waits for it, and both mean the same folder."""
    found = []
    for pod in pods(docs):
        writable = pod.name == "models"
        for container in pod.containers():
            for mount in container.get("volumeMounts", []):
                if mount["name"] == "models":
                    folder = pod.environment(container).get(fleet_settings.CACHE)
                    if folder != mount["mountPath"]:
                        found.append(f"{pod.name}: the model cache is at {mount['mountPath']}, not {folder}")
                    if mount.get("readOnly", False) is writable:
                        found.append(
                            f"{pod.name}: the model cache is {'read-only' if writable else 'writable'}"
                        )
        if pod.name == "lmm" and not any(c["name"] == "models" for c in pod.spec.get("initContainers", [])):
            found.append("lmm: does not wait for its models")
    return found


def one_namespace(docs: list[Doc]) -> list[str]:
    """Everything lies in the one namespace, which is restricted."""
    ((name, namespace),) = of_kind(docs, "Namespace").items()
    found = [
        f"{doc['kind']} {doc['metadata']['name']} is elsewhere"
        for doc in docs
        if doc["kind"] != "Namespace" and doc["metadata"].get("namespace") != name
    ]
    labels = namespace["metadata"].get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        found.append("the namespace is not restricted")
    return found


RULES: tuple[Rule, ...] = (
    hardened,
    own_version,
    can_write_where_it_must,
    settings_known,
    ports_agree,
    job_store_reached,
    drains_in_time,
    complete,
    models_only_read,
    one_namespace,
)
