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
    """The handlers of encoder, decoder and language-model worker, and inspection, which needs no model."""
    handlers = {"encoder": _encode, "decoder": _decode, "lmm": _words, "inspector": _inspect}
    return Backend(handlers, warm_up, catalogue)


def warm_up() -> None:
    """Load what pictures need; the models for words load when the first words come."""
    import picogram_decoder.handler
    import picogram_encoder.handler

    picogram_encoder.handler.warm_up()
    picogram_decoder.handler.warm_up()


def catalogue() -> dict[str, Any]:
    """The profiles offered, the manifests of the embedded models and of those that words need."""
    from picogram import models
    from picogram.models import store
    from picogram.profiles.recipes import RECIPES

    return {
        "profiles": [recipe.name for recipe in RECIPES.values() if recipe.written],
        "models": list(models.manifests().values()),
        "text_models": [
            {**remote.manifest, "state": store.state(name)} for name, remote in store.remotes().items()
        ],
    }


def _encode(jobs: list[Job]) -> list[Outcome]:
    from picogram_encoder.handler import handler

    return handler(jobs)


def _decode(jobs: list[Job]) -> list[Outcome]:
    from picogram_decoder.handler import handler

    return handler(jobs)


def _words(jobs: list[Job]) -> list[Outcome]:
    from picogram_lmm.handler import handler

    return handler(jobs)


def _inspect(jobs: list[Job]) -> list[Outcome]:
    return [_inspect_one(job) for job in jobs]


def _inspect_one(job: Job) -> Outcome:
    import picogram
    from picogram.jobs.words import description_of
    from picogram.semantics.words import ReadText

    plain = job.facts.get("description")
    description = description_of(plain) if plain else None
    text = ReadText(description, job.facts.get("coders", {}), job.warnings, job.facts.get("problems", {}))
    try:
        facts = picogram.inspect(job.payload, text=text).as_dict()
    except Exception as error:
        return error
    facts["description"] = plain
    return Result(json.dumps(facts, ensure_ascii=False).encode(), "application/json")
