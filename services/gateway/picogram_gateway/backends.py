# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which steps run within the gateway's process, and what can be done altogether.

embedded    all steps, a thread each; torch loads when the first handler does
fleet       the inspector only; workers elsewhere do the rest, and torch is never imported
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from picogram.jobs import Handler


def _nothing() -> None:
    """Nothing to warm up."""


@dataclass(frozen=True)
class Backend:
    """Who does the work here: a handler per step, what loads their models, and what can be done."""

    handlers: Mapping[str, Handler]
    warm_up: Callable[[], None] = _nothing
    catalogue: Callable[[], dict[str, Any]] = dict


def default_backend(*, fleet: bool) -> Backend:
    """``embedded``, or ``fleet``. Imported by name: the gateway proper depends on no worker."""
    if fleet:
        inspector = importlib.import_module("picogram_gateway.inspector")
        return Backend({"inspector": inspector.handler}, catalogue=inspector.catalogue)
    backend: Backend = importlib.import_module("picogram_gateway.embedded").backend()
    return backend
