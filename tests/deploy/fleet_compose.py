# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What must hold of the compose file; each rule takes it, filled in, and returns what is wrong."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import fleet_settings
from fleet_files import SERVICES, WORKERS, Doc, dockerfile
from fleet_rules import SPARE_SECONDS
from fleet_scaling import quantity


def hardened(compose: Doc) -> list[str]:
    """No root, no capability, nothing to write but what is said, limits."""
    found = []
    for name, service in compose["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        wanted = {
            "the root file system can be written": service.get("read_only") is True,
            "keeps capabilities": service.get("cap_drop") == ["ALL"],
            "privileges may grow": "no-new-privileges:true" in service.get("security_opt", []),
            "no limits": {"cpus", "memory", "pids"} <= set(limits),
            "nowhere to write": any(entry.startswith("/tmp:") for entry in service.get("tmpfs", [])),
            "may run as root": bool(service.get("user")) or name in SERVICES or _is_lmm(service),
            "image without a pinned tag": bool(re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"])),
            "does not come back": service.get("restart") in ("unless-stopped", "on-failure:5"),
            "is killed too early": "stop_grace_period" in service,
        }
        found += [f"{name}: {what}" for what, well in wanted.items() if not well]
    return found


def built(compose: Doc) -> list[str]:
    """Our images come from a Dockerfile and a stage that exist; the build target says which processor."""
    found = [f"no service {name}" for name in SERVICES if name not in compose["services"]]
    for name, service in compose["services"].items():
        if name == "valkey":
            continue
        build = service.get("build", {})
        image = service["image"].partition(":")[0].removeprefix("picogram/")
        if build.get("dockerfile") != f"services/{image}/Dockerfile":
            found.append(f"{name}: {service['image']} is built from {build.get('dockerfile')}")
        elif (target := build.get("target", "runtime")) not in dockerfile(image):
            found.append(f"{name}: the Dockerfile has no stage {target}")
        elif service["image"].endswith("-cuda") != (target == "cuda"):
            found.append(f"{name}: {service['image']} is built as {target}")
    return found


def settings_known(compose: Doc) -> list[str]:
    """The code knows every variable and can read its value."""
    found = []
    for name, service in compose["services"].items():
        if name in SERVICES:
            found += fleet_settings.problems(name, _environment(service))
        else:
            ours = {key for key in service.get("environment", {}) if key.startswith("PICOGRAM_")}
            found += [f"{name}: nobody reads {key}" for key in ours - {fleet_settings.CACHE}]
    return found


def drains_in_time(compose: Doc) -> list[str]:
    """Nobody is killed before the time that the code takes to end."""
    found = []
    for name in SERVICES:
        service = compose["services"][name]
        drain = fleet_settings.read(name, _environment(service))["drain_seconds"]
        assert isinstance(drain, float)
        if float(service["stop_grace_period"].removesuffix("s")) < drain + SPARE_SECONDS:
            found.append(f"{name}: is killed before it can drain ({drain:g} s)")
    return found


def reachable(compose: Doc) -> list[str]:
    """The gateway alone is published, the job store is within, and the settings name it."""
    found = []
    networks, services = compose["networks"], compose["services"]
    inner = {name for name, network in networks.items() if network.get("internal")}
    for name, service in services.items():
        if bool(service.get("ports")) != (name == "gateway"):
            found.append(f"{name}: published or not, against the plan")
        if name in (*WORKERS, "valkey") and not set(service["networks"]) <= inner:
            found.append(f"{name}: reaches the outside")
    for name in SERVICES:
        url = urlsplit(_environment(services[name])["PICOGRAM_REDIS_URL"])
        store = services.get(str(url.hostname))
        if store is None or url.port != 6379 or not set(store["networks"]) & set(services[name]["networks"]):
            found.append(f"{name}: no job store at {url.hostname}:{url.port}")
        elif url.password != store["environment"]["REDISCLI_AUTH"]:
            found.append(f"{name}: has another password than the job store")
    port = fleet_settings.read("gateway", _environment(services["gateway"]))["port"]
    if [entry.rpartition(":")[2] for entry in services["gateway"]["ports"]] != [str(port)]:
        found.append(f"gateway: listens on {port}")
    return found


def ordered(compose: Doc) -> list[str]:
    """The job store comes first; the language-model worker also waits for models, which only their service writes."""
    found = []
    services = compose["services"]
    for name in SERVICES:
        waits = {other: how["condition"] for other, how in services[name].get("depends_on", {}).items()}
        wanted = {"valkey": "service_healthy"}
        wanted |= {"models": "service_completed_successfully"} if name == "lmm" else {}
        if waits != wanted:
            found.append(f"{name}: waits for {waits}")
    for name, folder in (("models", "models:/models"), ("lmm", "models:/models:ro")):
        cache = services[name]["environment"].get(fleet_settings.CACHE)
        if folder not in services[name]["volumes"] or cache != "/models":
            found.append(f"{name}: the model cache is at {cache}")
    return found


def store_keeps_jobs(compose: Doc) -> list[str]:
    """Nothing evicted, everything on the volume, memory for twice the data, a health check."""
    store = compose["services"]["valkey"]
    script = store["command"][-1]
    flags = ("--hz 100", "--appendonly yes", "--maxmemory-policy noeviction", "requirepass")
    found = [f"valkey: runs without {flag}" for flag in flags if flag not in script]
    data = re.search(r"--maxmemory (\w+)", script)
    limit = store["deploy"]["resources"]["limits"]["memory"]
    if data is None or quantity(f"{limit}b") < 2 * quantity(data[1]):
        found.append("valkey: is killed while it writes its file anew")
    if not any(volume.endswith(":/data") for volume in store.get("volumes", [])):
        found.append("valkey: forgets its jobs")
    return found + ([] if store.get("healthcheck") else ["valkey: is not checked"])


def threads_fit(compose: Doc) -> list[str]:
    """As many threads as cores."""
    found = []
    for name in WORKERS:
        service = compose["services"][name]
        if service["environment"]["OMP_NUM_THREADS"] != str(service["deploy"]["resources"]["limits"]["cpus"]):
            found.append(f"{name}: threads and cores differ")
    return found


def _environment(service: Doc) -> dict[str, str]:
    return {key: str(value) for key, value in service["environment"].items()}


def _is_lmm(service: Doc) -> bool:
    return str(service["image"]).startswith("picogram/lmm:")


RULES = (hardened, built, settings_known, drains_in_time, reachable, ordered, store_keeps_jobs, threads_fit)
