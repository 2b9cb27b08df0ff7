# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How many pods there may be, and who decides; each rule takes the objects of an overlay and returns what is wrong."""

from __future__ import annotations

import re

import fleet_settings
from fleet_files import WORKERS, Doc, Pod, of_kind, pods

from picogram.jobs.redis.key_names import Keys

_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "kb": 2.0**10,
    "mb": 2.0**20,
    "gb": 2.0**30,
}


def quantity(text: object) -> float:
    """A number of Kubernetes or Valkey."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert match, text
    return float(match[1]) * _UNITS[match[2]]


def streams_followed(docs: list[Doc]) -> list[str]:
    """KEDA looks at all streams of a step, as the code names them, and counts what waits and what runs."""
    found = []
    scaled = {
        doc["spec"]["scaleTargetRef"]["name"]: doc["spec"] for doc in of_kind(docs, "ScaledObject").values()
    }
    for pod in (pod for pod in pods(docs) if pod.name in scaled):
        keys, batch = Keys(str(_setting(pod, "queue_prefix"))), _batch(pod)
        triggers = [trigger["metadata"] for trigger in scaled[pod.name]["triggers"]]
        if sorted(trigger["stream"] for trigger in triggers) != sorted(keys.queues(pod.name)):
            found.append(f"{pod.name}: follows other streams than {keys.queues(pod.name)}")
        for trigger in triggers:
            if trigger.get("streamLength") != str(batch):
                found.append(f"{pod.name}: a pod takes {batch} at once, not {trigger.get('streamLength')}")
            if "consumerGroup" in trigger:
                found.append(f"{pod.name}: with a consumer group, jobs that run do not count")
            if trigger.get("address") != _address(docs, pod):
                found.append(f"{pod.name}: the job store is not at {trigger.get('address')}")
        if {entry.get("authenticationRef", {}).get("name") for entry in scaled[pod.name]["triggers"]} != set(
            of_kind(docs, "TriggerAuthentication")
        ):
            found.append(f"{pod.name}: KEDA has no password")
    if scaled and sorted(scaled) != sorted(WORKERS):
        found.append(f"KEDA scales {sorted(scaled)}")
    return found


def depth_followed(docs: list[Doc]) -> list[str]:
    """Without KEDA: the gateway's metric, by the step's name, a batch for each pod."""
    found = []
    external = {}
    for name, doc in of_kind(docs, "HorizontalPodAutoscaler").items():
        for metric in doc["spec"]["metrics"]:
            if metric["type"] == "External":
                external[name] = metric["external"]
    for pod in (pod for pod in pods(docs) if pod.name in external):
        metric = external[pod.name]["metric"]
        if metric != {"name": "picogram_queue_depth", "selector": {"matchLabels": {"step": pod.name}}}:
            found.append(f"{pod.name}: follows {metric}")
        if external[pod.name]["target"].get("averageValue") != str(_batch(pod)):
            found.append(f"{pod.name}: a pod takes {_batch(pod)} at once")
    if external and sorted(external) != sorted(WORKERS):
        found.append(f"the autoscalers are for {sorted(external)}")
    return found


def one_decides(docs: list[Doc]) -> list[str]:
    """Replicas are written down exactly where no autoscaler sets them."""
    scalers = [("ScaledObject", doc) for doc in of_kind(docs, "ScaledObject").values()]
    scalers += [("autoscaler", doc) for doc in of_kind(docs, "HorizontalPodAutoscaler").values()]
    targets = [doc["spec"]["scaleTargetRef"]["name"] for _, doc in scalers]
    found = [f"{name}: scaled twice" for name in sorted(set(targets)) if targets.count(name) > 1]
    for name, deployment in of_kind(docs, "Deployment").items():
        fixed = "replicas" in deployment["spec"]
        if fixed and name in targets:
            found.append(f"{name}: each apply would undo the autoscaler")
        if not fixed and name not in targets:
            found.append(f"{name}: nobody says how many")
    return found


def queues_hold_enough(docs: list[Doc]) -> list[str]:
    """A queue holds a batch for the most pods of its worker, and as many jobs again that wait."""
    found = []
    for pod in (pod for pod in pods(docs) if pod.name in WORKERS):
        depth, wanted = _setting(pod, "queue_depth"), 2 * most(docs, pod.name) * _batch(pod)
        if depth < wanted:
            found.append(
                f"{pod.name}: a queue of {depth} never fills {most(docs, pod.name)} pods, {wanted} would"
            )
    return found


def store_has_room(docs: list[Doc]) -> list[str]:
    """While the append-only file is written anew, changed pages exist twice."""
    (store,) = (pod for pod in pods(docs) if pod.kind == "StatefulSet")
    data = quantity(store.environment(store.main())["VALKEY_MAXMEMORY"])
    limit = quantity(store.main()["resources"]["limits"]["memory"])
    disk = quantity(
        store.owner["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    )
    found = [] if limit >= 2 * data else ["valkey: is killed while it writes its file anew"]
    if disk < 3 * data:
        found.append("valkey: the volume cannot hold the file and the one that replaces it")
    script = " ".join(store.main()["args"])
    for flag in ("--hz 100", "--appendonly yes", "--maxmemory-policy noeviction", "requirepass"):
        if flag not in script:
            found.append(f"valkey: runs without {flag}")
    return found


def within_quota(docs: list[Doc]) -> list[str]:
    """The most pods that autoscalers may ask for, and the one more of each update, fit into the namespace."""
    (quota,) = of_kind(docs, "ResourceQuota").values()
    (limits,) = of_kind(docs, "LimitRange").values()
    hard, largest = quota["spec"]["hard"], limits["spec"]["limits"][0]["max"]
    total: dict[str, float] = {}
    found = []
    for pod in pods(docs):
        surge = pod.owner["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 0)
        count = most(docs, pod.name) + int(surge)
        total["pods"] = total.get("pods", 0) + count
        for kind in ("requests", "limits"):
            for what, amount in pod.main()["resources"][kind].items():
                key = f"requests.{what}" if "/" in what else f"{kind}.{what}"
                total[key] = total.get(key, 0) + count * quantity(amount)
                if kind == "limits" and quantity(amount) > quantity(largest.get(what, amount)):
                    found.append(f"{pod.name}: more {what} than a container may have")
    found += [
        f"the quota of {what} is {hard.get(what, 'missing')}, {amount:g} may be asked for"
        for what, amount in total.items()
        if quantity(hard.get(what, "0")) < amount
    ]
    return found


def gpus_reserved(docs: list[Doc]) -> list[str]:
    """Workers with a GPU tolerate its nodes, have shared memory, the right image, and no second pod during updates."""
    found = []
    for pod in pods(docs):
        gpu = pod.main()["resources"]["limits"].get("nvidia.com/gpu")
        image, init = pod.main()["image"], [c["image"] for c in pod.spec.get("initContainers", [])]
        if image.endswith("-cuda") != bool(gpu) or any(name.endswith("-cuda") for name in init):
            found.append(f"{pod.name}: {image} with {gpu or 'no'} GPU")
        if not gpu:
            continue
        mounts = {mount["mountPath"] for mount in pod.main()["volumeMounts"]}
        wanted = {
            "does not tolerate GPU nodes": any(
                t["key"] == "nvidia.com/gpu" for t in pod.spec.get("tolerations", [])
            ),
            "may start elsewhere": "nvidia.com/gpu.present" in pod.spec.get("nodeSelector", {}),
            "has no shared memory or cache": {"/dev/shm", "/cache"} <= mounts,
            "needs a second GPU to update": pod.owner["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0,
        }
        found += [f"{pod.name}: {what}" for what, well in wanted.items() if not well]
    return found


def most(docs: list[Doc], name: str) -> int:
    """The most pods there will be of a deployment; 1 of anything else."""
    for doc in of_kind(docs, "ScaledObject").values():
        if doc["spec"]["scaleTargetRef"]["name"] == name:
            return int(doc["spec"]["maxReplicaCount"])
    for doc in of_kind(docs, "HorizontalPodAutoscaler").values():
        if doc["spec"]["scaleTargetRef"]["name"] == name:
            return int(doc["spec"]["maxReplicas"])
    return int(of_kind(docs, "Deployment").get(name, {}).get("spec", {}).get("replicas", 1))


def _batch(pod: Pod) -> int:
    return _setting(pod, "max_text_batch" if pod.name == "lmm" else "max_batch")


def _setting(pod: Pod, name: str) -> int:
    value = fleet_settings.read(pod.name, pod.environment(pod.main()))[name]
    return value  # type: ignore[return-value]


def _address(docs: list[Doc], pod: Pod) -> str:
    url = pod.environment(pod.main())["PICOGRAM_REDIS_URL"].partition("@")[2]
    host, _, port = url.partition("/")[0].partition(":")
    return f"{host}.{of_kind(docs, 'Deployment')[pod.name]['metadata']['namespace']}.svc:{port}"


RULES = (
    streams_followed,
    depth_followed,
    one_decides,
    queues_hold_enough,
    store_has_room,
    within_quota,
    gpus_reserved,
)
