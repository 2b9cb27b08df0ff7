# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How jobs, results and errors are written down: JSON without payloads, which lie in the blob store.

Job    <-> {"v": 1, "kind": ..., "route": [...], ..., "blob": "name of the payload"}
Result <-> {"media_type": ..., "metadata": {...}, "warnings": [...], "timings": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from picogram import errors
from picogram.errors import JobFailed, PicogramError
from picogram.jobs.job import Job, Result

VERSION: Final = 1
_FIELDS: Final = (
    "kind",
    "options",
    "compatibility",
    "cost",
    "deadline",
    "priority",
    "owner",
    "key",
    "fingerprint",
    "trace",
    "id",
    "created_at",
    "queued_at",
    "timings",
    "facts",
)


def write_job(job: Job, blob: str) -> str:
    """Everything but the payload, which is to be found under the name ``blob``."""
    plain = {name: getattr(job, name) for name in _FIELDS}
    return json.dumps(
        {"v": VERSION, **plain, "route": job.route, "warnings": job.warnings, "blob": blob},
        default=_plain,
        separators=(",", ":"),
    )


def blob_of(envelope: str | bytes) -> str:
    """The name of the payload. Raises ValueError for an envelope of a later version, or none."""
    plain = json.loads(envelope)
    if plain.get("v") != VERSION:
        raise ValueError(f"the job was written by another version of Picogram ({plain.get('v')})")
    return str(plain["blob"])


def read_job(envelope: str | bytes, payload: bytes, attempt: int) -> Job:
    """The job as it was, at its ``attempt``-th delivery."""
    plain = json.loads(envelope)
    fields = {name: plain[name] for name in _FIELDS}
    return Job(
        payload=payload,
        route=tuple(plain["route"]),
        warnings=tuple(plain["warnings"]),
        attempt=attempt,
        **fields,
    )


def write_result(result: Result) -> str:
    """Everything but the payload."""
    plain = {
        "media_type": result.media_type,
        "metadata": dict(result.metadata),
        "warnings": result.warnings,
        "timings": dict(result.timings),
    }
    return json.dumps(plain, default=_plain, separators=(",", ":"))


def read_result(text: str | bytes, payload: bytes) -> Result:
    """The inverse of ``write_result``."""
    plain = json.loads(text)
    return Result(payload, plain["media_type"], plain["metadata"], tuple(plain["warnings"]), plain["timings"])


def read_error(slug: str, detail: str) -> PicogramError:
    """The error of that slug; one that this version does not know is a JobFailed."""
    return _error_types().get(slug, JobFailed)(detail)


def _error_types() -> dict[str, type[PicogramError]]:
    return {
        each.slug: each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, PicogramError)
    }


def _plain(value: object) -> Any:
    """Mappings and tuples that JSON does not know by itself."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot travel with a job")
