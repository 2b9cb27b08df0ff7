# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Environments of containers against the settings classes: does the code know the variable, can it read the value?"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from fleet_files import clean_environment
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from picogram.jobs.queue_settings import QueueSettings
from picogram.models.fetch import cache_folder
from picogram.observe.log_settings import LogSettings
from picogram.workers.worker_settings import WorkerSettings
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_lmm.lmm_settings import LmmSettings

_WORKER: tuple[type[BaseSettings], ...] = (QueueSettings, WorkerSettings, LogSettings)
CLASSES: dict[str, tuple[type[BaseSettings], ...]] = {
    "gateway": (GatewaySettings,),
    "encoder": _WORKER,
    "decoder": _WORKER,
    "lmm": (*_WORKER, LmmSettings),
}
CACHE = "PICOGRAM_CACHE"


def names(service: str) -> set[str]:
    """All variables that a service reads."""
    found = {
        f"{kind.model_config['env_prefix']}{name}".upper()
        for kind in CLASSES[service]
        for name in kind.model_fields
    }
    return found | ({CACHE} if service == "lmm" else set())


def problems(service: str, environment: Mapping[str, str]) -> list[str]:
    """What of an environment the service would not understand."""
    ours = {key: value for key, value in environment.items() if key.startswith("PICOGRAM_")}
    found = [f"{service}: no setting is called {name}" for name in sorted(set(ours) - names(service))]
    try:
        read(service, environment)
    except ValidationError as error:
        found += [f"{service}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    if CACHE in ours and (folder := _cache(ours[CACHE])) != ours[CACHE]:
        found.append(f"{service}: {CACHE} is not what names the model cache, it is {folder}")
    return found


def read(service: str, environment: Mapping[str, str]) -> dict[str, object]:
    """Every setting of the service by its field's name, as its process would see it. Raises ValidationError."""
    values: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        _only(environment, patch)
        for kind in CLASSES[service]:
            values |= dict(kind())
    return values


def _cache(folder: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, folder)
        return str(cache_folder())


def _only(environment: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    import os

    patch.setattr(os, "environ", {**clean_environment(), **environment})
