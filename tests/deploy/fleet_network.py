# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Network policies as the connections that they leave open, compared with those that the settings need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import fleet_settings
from fleet_files import SERVICES, WORKERS, Doc, of_kind, pods

Edge = tuple[str, str, int]
"""Who, to whom, at which port. Pods go by their name, others as ``namespace:name`` or ``address:range``."""
_PUBLIC = "address:0.0.0.0/0"
_PRIVATE = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"}
DNS = "namespace:kube-system"


def open_edges(docs: list[Doc]) -> set[Edge]:
    """Connections that both ends allow; the world outside allows everything."""
    labels = {pod.name: pod.labels for pod in pods(docs)}
    outgoing = set(_edges(docs, labels, "Egress"))
    incoming = set(_edges(docs, labels, "Ingress"))
    free = {name for name in labels if not _held(docs, labels[name], "Egress")}
    assert not free, f"{free} may talk to anybody"
    inside = {edge for edge in outgoing if edge[1] in labels} & {
        edge for edge in incoming if edge[0] in labels
    }
    return (
        inside
        | {edge for edge in outgoing if edge[1] not in labels}
        | {edge for edge in incoming if edge[0] not in labels}
    )


def needed_edges(docs: list[Doc]) -> set[Edge]:
    """What the settings ask for."""
    edges: set[Edge] = set()
    monitored = bool(of_kind(docs, "PodMonitor"))
    for pod in (pod for pod in pods(docs) if pod.name in SERVICES):
        environment = pod.environment(pod.main())
        settings = fleet_settings.read(pod.name, environment)
        url = urlsplit(environment["PICOGRAM_REDIS_URL"])
        edges |= {(pod.name, str(url.hostname), int(url.port or 0)), (pod.name, DNS, 53)}
        assert not settings["otlp_endpoint"], "traces need a policy of their own"
        if monitored:
            port = settings["health_port" if pod.name in WORKERS else "metrics_port"]
            edges.add(("namespace:monitoring", pod.name, int(str(port))))
        if pod.name == "gateway":
            edges.add(("namespace:ingress-nginx", pod.name, int(str(settings["port"]))))
    edges |= {("models", DNS, 53), ("models", _PUBLIC, 443)}
    for authentication in of_kind(docs, "ScaledObject").values():
        for trigger in authentication["spec"]["triggers"]:
            host, _, port = trigger["metadata"]["address"].partition(":")
            edges.add(("namespace:keda", host.split(".")[0], int(port)))
    return edges


def problems(docs: list[Doc]) -> list[str]:
    """Connections that are open and not needed, or needed and not open."""
    is_open, needed = open_edges(docs), needed_edges(docs)
    return [f"not needed: {edge}" for edge in sorted(is_open - needed)] + [
        f"not open: {edge}" for edge in sorted(needed - is_open)
    ]


def _held(docs: list[Doc], labels: dict[str, str], direction: str) -> bool:
    """Whether any policy selects the pod for this direction: without one, everything is open."""
    return any(
        _selects(policy["spec"]["podSelector"], labels) and direction in policy["spec"]["policyTypes"]
        for policy in of_kind(docs, "NetworkPolicy").values()
    )


def _edges(docs: list[Doc], labels: dict[str, dict[str, str]], direction: str) -> Iterator[Edge]:
    far = "to" if direction == "Egress" else "from"
    for policy in of_kind(docs, "NetworkPolicy").values():
        spec = policy["spec"]
        here = [name for name in labels if _selects(spec["podSelector"], labels[name])]
        for rule in spec.get(direction.lower(), []):
            for peer in rule.get(far, [{"ipBlock": {"cidr": "0.0.0.0/0"}}]):
                for there in _peers(peer, labels):
                    for port in rule.get("ports", [{"port": 0}]):
                        for name in here:
                            ends = (name, there) if direction == "Egress" else (there, name)
                            yield (*ends, int(port["port"]))


def _peers(peer: dict[str, Any], labels: dict[str, dict[str, str]]) -> Iterator[str]:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        private = set() if set(block.get("except", [])) >= _PRIVATE else {"with private ones"}
        yield " ".join([f"address:{block['cidr']}", *private])
    elif "namespaceSelector" in peer:
        yield "namespace:" + peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    else:
        yield from (name for name in labels if _selects(peer["podSelector"], labels[name]))


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
