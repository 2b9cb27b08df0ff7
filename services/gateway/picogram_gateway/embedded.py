# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded server's other half: the workers' handlers, called in this process.

The only module of the gateway that reaches models (and thus torch), and it does so when first called.
"""

from __future__ import annotations

from typing import Any

from picogram.jobs import Job, Outcome
from picogram_gateway import inspector
from picogram_gateway.backends import Backend


def backend() -> Backend:
    """The handlers of encoder, decoder and language-model worker, and inspection, which needs no model."""
    handlers = {"encoder": _encode, "decoder": _decode, "lmm": _words, "inspector": inspector.handler}
    return Backend(handlers, warm_up, catalogue)


def warm_up() -> None:
    """Load what pictures need; the models for words load when the first words come."""
    import picogram_decoder.handler
    import picogram_encoder.handler

    picogram_encoder.handler.warm_up()
    picogram_decoder.handler.warm_up()


def catalogue() -> dict[str, Any]:
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
