# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded server's other half: the workers' handlers, called in this process.

The only module of the gateway that reaches models (and thus torch), and it does so when first called.
"""

from __future__ import annotations

import json
from typing import Any

from picogram.jobs import Job, Outcome, Result
from picogram_gateway.dispatch import Backend


def backend() -> Backend:
    """The handlers of encoder and decoder, and inspection, which needs no model."""
    handlers = {"encoder": _encode, "decoder": _decode, "inspector": _inspect}
    return Backend(handlers, warm_up, catalogue)


def warm_up() -> None:
    """Load what both handlers need."""
    import picogram_decoder.handler
    import picogram_encoder.handler

    picogram_encoder.handler.warm_up()
    picogram_decoder.handler.warm_up()


def catalogue() -> dict[str, Any]:
    """The profiles offered and the manifests of the embedded models."""
    from picogram import models

    return {"profiles": ["base"], "models": list(models.manifests().values())}


def _encode(jobs: list[Job]) -> list[Outcome]:
    from picogram_encoder.handler import handler

    return handler(jobs)


def _decode(jobs: list[Job]) -> list[Outcome]:
    from picogram_decoder.handler import handler

    return handler(jobs)


def _inspect(jobs: list[Job]) -> list[Outcome]:
    return [_inspect_one(job) for job in jobs]


def _inspect_one(job: Job) -> Outcome:
    import picogram

    try:
        facts = picogram.inspect(job.payload).as_dict()
    except Exception as error:
        return error
    return Result(json.dumps(facts).encode(), "application/json")
