# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Dead letters: jobs that were given up because every worker that took them died or went silent."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

from picogram.errors import JobUnknown
from picogram.jobs.redis.connection import our_errors
from picogram.jobs.redis.envelope import blob_of, read_job
from picogram.jobs.redis.redis_broker import RedisBroker

_PAGE: Final = 100
_AGAIN: Final = 600.0
"""Seconds that a job which is tried again gets."""


@dataclass(frozen=True)
class Letter:
    """One that was given up: ``entry`` names it, ``at`` is in Unix seconds, ``step`` is what it died of."""

    entry: str
    job_id: str
    kind: str
    step: str
    attempts: int
    at: float
    envelope: bytes


class DeadLetters:
    """Those of one step, oldest first."""

    def __init__(self, broker: RedisBroker, step: str) -> None:
        self._broker, self._store = broker, broker.store
        self._stream = broker.store.keys.dead(step)

    async def read(self) -> AsyncIterator[Letter]:
        """All of them."""
        after = "-"
        while True:
            with our_errors():
                page: Any = await self._store.client.xrange(self._stream, after, "+", _PAGE)
            for entry, fields in page or []:
                yield _letter(entry.decode(), fields)
                after = f"({entry.decode()}"
            if len(page or []) < _PAGE:
                return

    async def retry(self, letter: Letter) -> str:
        """Submit the job once more, under a new id, which is returned. Raises JobUnknown if its payload has expired."""
        blob = blob_of(letter.envelope)
        with our_errors():
            [payload] = await self._store.blobs.get([blob])
        if payload is None:
            raise JobUnknown(f"the payload of {letter.job_id} has expired")
        now = time.time()
        job = read_job(letter.envelope, payload, attempt=1)
        job = replace(job, id=uuid.uuid4().hex, key="", created_at=now, queued_at=now, deadline=now + _AGAIN)
        await self._broker.submit(job)
        await self.drop(letter)
        return job.id

    async def drop(self, letter: Letter) -> None:
        """Forget it, and its payload."""
        with our_errors():
            await self._store.client.xdel(self._stream, letter.entry)
            await self._store.blobs.delete(blob_of(letter.envelope))


def _letter(entry: str, fields: dict[bytes, bytes]) -> Letter:
    envelope = fields[b"envelope"]
    about = json.loads(envelope)
    return Letter(
        entry,
        fields[b"id"].decode(),
        about.get("kind", ""),
        about.get("route", [""])[0],
        int(fields[b"attempts"]),
        float(fields[b"at"]),
        envelope,
    )
