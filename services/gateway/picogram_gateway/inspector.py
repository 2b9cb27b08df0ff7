# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The step ``inspector``: work that needs no model, done within the gateway wherever the other steps are done.

    inspector             .pico file, what was read of its words ── JSON
    inspector:reference   picture ── the same by a classical codec

It reaches models only in the sense that it looks up their names: torch is not imported.
"""

from __future__ import annotations

import json
from typing import Any

import picogram
from picogram.errors import UsageError
from picogram.jobs import Job, Outcome, Result
from picogram.jobs.words import description_of
from picogram.semantics.words import ReadText
from picogram_gateway.reference import reference


def handler(jobs: list[Job]) -> list[Outcome]:
    """One outcome per job, in order."""
    return [_one(job) for job in jobs]


def catalogue() -> dict[str, Any]:
    """The profiles offered, the manifests of the models shipped and of those that words need.

    Whether the latter are there is up to the workers.
    """
    from picogram import models
    from picogram.models import store
    from picogram.profiles.recipes import RECIPES

    return {
        "profiles": [recipe.name for recipe in RECIPES.values()],
        "models": list(models.manifests().values()),
        "drawing_models": [models.shipped_manifest(f"diffusion-{models.DEFAULT_DIFFUSION}")],
        "text_models": [dict(remote.manifest) for remote in store.remotes().values()],
    }


def _one(job: Job) -> Outcome:
    try:
        if job.task == "reference":
            return reference(job.payload, job.options["codec"], job.options["bytes"], job.control.check)
        if job.task:
            raise UsageError(f"the gateway has no task {job.task!r}")
        return _inspect(job)
    except Exception as error:
        return error


def _inspect(job: Job) -> Result:
    plain = job.facts.get("description")
    description = description_of(plain) if plain else None
    text = ReadText(description, job.facts.get("coders", {}), job.warnings, job.facts.get("problems", {}))
    facts = picogram.inspect(job.payload, text=text).as_dict()
    facts["description"] = plain
    return Result(json.dumps(facts, ensure_ascii=False).encode(), "application/json")
