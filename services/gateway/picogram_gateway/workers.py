# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which steps run within the gateway's process, and what can be done altogether.

embedded    all steps, a thread each, by the workers' handlers; torch loads when the first handler does
fleet       the inspector only; workers elsewhere do the rest, and torch is never imported

The only module of the gateway that reaches models (and thus torch), and it does so when a handler is first called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from picogram.jobs import Handler, Job, Outcome
from picogram_gateway import inspector


def _nothing() -> None:
    """Nothing to warm up."""


@dataclass(frozen=True)
class Backend:
    """Who does the work here: a handler per step, what loads their models, and what can be done."""

    handlers: Mapping[str, Handler]
    warm_up: Callable[[], None] = _nothing
    catalogue: Callable[[], dict[str, Any]] = dict


def fleet_backend() -> Backend:
    """Inspection alone, which needs no model."""
    return Backend({"inspector": inspector.handler}, catalogue=inspector.catalogue)


def embedded_backend() -> Backend:
    """The handlers of encoder, decoder and language-model worker, and inspection, which needs no model."""
    handlers = {"encoder": _encode, "decoder": _decode, "lmm": _words, "inspector": inspector.handler}
    return Backend(handlers, _warm_up, _catalogue)


def _warm_up() -> None:
    """Load what pictures need; the models for words load when the first words come."""
    import picogram_decoder.handler
    import picogram_encoder.handler

    picogram_encoder.handler.warm_up()
    picogram_decoder.handler.warm_up()


def _catalogue() -> dict[str, Any]:
    """What the inspector says, and the state of the models that words need: in the process that would load them."""
    from picogram.models import store

    known = inspector.catalogue()
    states = [store.state(name) for name in store.remotes()]
    models = [{**each, "state": state} for each, state in zip(known["text_models"], states, strict=True)]
    return {**known, "text_models": models}


def _encode(jobs: list[Job]) -> list[Outcome]:
    from picogram_encoder.handler import handler

    return handler(jobs)


def _decode(jobs: list[Job]) -> list[Outcome]:
    from picogram_decoder.handler import handler

    return handler(jobs)


def _words(jobs: list[Job]) -> list[Outcome]:
    from picogram_lmm.handler import handler

    return handler(jobs)
