# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The callers' half of the Redis broker: submit, wait, watch, cancel."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final, cast

from picogram.errors import JobConflict, JobTimeout, JobUnknown, QueueFull
from picogram.jobs.job import Job, Priority, Result
from picogram.jobs.redis.blobs import new_name
from picogram.jobs.redis.connection import StoreFull, our_errors
from picogram.jobs.redis.envelope import read_error, read_result, write_job
from picogram.jobs.redis.store_client import Store
from picogram.jobs.redis.waiting import Endings
from picogram.jobs.state import FINAL, Event, EventName, JobState, Status, WorkerInfo

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_EVENT_ID = re.compile(r"\d{1,15}-\d{1,9}")
_SIGN_OF_LIFE: Final = 60.0
_WATCH: Final = (0.05, 0.5)
"""Seconds between looks for events: at first, and at most."""
_STATE: Final = (
    "kind", "status", "step", "priority", "owner", "created", "updated", "deadline", "attempt", "progress",
    "slug", "detail",
)  # fmt: skip


class Callers:
    """Methods as in ``Broker``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._endings = Endings(store.client, store.keys.reply(store.name))

    async def submit(self, job: Job) -> str:
        try:
            return await self._submit(job)
        except StoreFull as error:
            raise QueueFull(str(error)) from error

    async def _submit(self, job: Job) -> str:
        store, blob = self._store, new_name(job.id)
        key = store.keys.idempotency(job.owner, job.key) if job.key else ""
        along = await store.keep(blob, job.payload, store.stay(job))
        await self._endings.expect(job.id)
        deadline = "" if job.deadline is None else job.deadline
        fields = {
            "kind": job.kind, "priority": job.priority, "owner": job.owner, "created": job.created_at,
            "deadline": deadline, "attempt": 0, "progress": 0, "key": key, "reply": store.keys.reply(store.name),
        }  # fmt: skip
        streams = [*store.keys.queues(job.step), store.keys.queue(job.step, job.priority), key]
        about: list[Any] = [
            job.id,
            store.max_depth,
            job.fingerprint,
            int(1000 * store.stay(job)),
            time.time(),
        ]
        entry: list[Any] = [job.route[0], "\n".join(job.batch_key), job.cost, deadline, write_job(job, blob)]
        flat: list[Any] = [part for pair in fields.items() for part in pair]
        try:
            verdict = await store.call("submit", streams, [*about, *entry, blob, *along, *flat])
        except BaseException:
            self._endings.settled(job.id)
            raise
        if verdict[0] == b"queued":
            return job.id
        self._endings.settled(job.id)
        with our_errors():
            await store.blobs.delete(blob)
        if verdict[0] == b"known":
            return bytes(verdict[1]).decode()
        if verdict[0] == b"conflict":
            raise JobConflict("this idempotency key came with another request before")
        raise QueueFull(f"{store.max_depth} jobs are waiting already")

    async def result(self, job_id: str, wait: float | None = None) -> Result:
        self._check(job_id)
        until = None if wait is None else time.time() + wait
        while True:
            about = await self._store.call("result", [], [job_id])
            if not about:
                raise _unknown()
            if about[0].decode() in FINAL:
                self._endings.settled(job_id)
                return await self._outcome(*about)
            now = time.time()
            deadline = float(about[1]) if about[1] else None
            if deadline is not None and now >= deadline:
                self._endings.settled(job_id)
                raise JobTimeout("the deadline passed before the job was done")
            if until is not None and now >= until:
                raise TimeoutError
            left = min(each - now for each in (until, deadline, now + 60) if each is not None)
            await self._endings.wait(job_id, left)

    async def state(self, job_id: str) -> JobState:
        fields = await self._fields(job_id, *_STATE)
        deadline = float(fields["deadline"]) if fields["deadline"] else None
        error = read_error(fields["slug"], fields["detail"]) if fields["slug"] else None
        status = cast(Status, fields["status"])
        if status not in FINAL and deadline is not None and time.time() >= deadline:
            status, error = "failed", JobTimeout("the deadline passed before the job was done")
        return JobState(
            job_id,
            fields["kind"],
            status,
            fields["step"],
            cast(Priority, fields["priority"]),
            fields["owner"],
            float(fields["created"]),
            float(fields["updated"]),
            deadline,
            int(fields["attempt"]),
            1.0 if status == "done" else float(fields["progress"]),
            error,
        )

    async def events(self, job_id: str, after: str = "") -> AsyncIterator[Event]:
        # Only ids as the store makes them go into a command.
        seen = after if _EVENT_ID.fullmatch(after) else "0-0"
        pause = _WATCH[0]
        while True:
            state = await self.state(job_id)  # before the events, so that none that led there is missed
            news = await self._news(job_id, seen)
            for event in news:
                yield event
                seen = event.id
            if any(event.final for event in news) or (state.final and not news):
                return
            pause = _WATCH[0] if news else min(_WATCH[1], 1.5 * pause)
            await asyncio.sleep(pause)

    async def cancel(self, job_id: str) -> bool:
        self._check(job_id)
        verdict = await self._store.call("cancel", [], [job_id, time.time(), self._store.ttl])
        if verdict < 0:
            raise _unknown()
        return bool(verdict)

    async def forget(self, job_id: str) -> None:
        self._check(job_id)
        self._endings.settled(job_id)
        blob = await self._store.call("forget", [], [job_id])
        if blob and not self._store.blobs.within:
            with our_errors():
                await self._store.blobs.delete(blob.decode())

    async def depth(self, step: str, priority: Priority | None = None) -> int:
        keys = self._store.keys
        streams = keys.queues(step) if priority is None else [keys.queue(step, priority)]
        with our_errors():
            return sum([await self._store.client.xlen(stream) for stream in streams])

    async def workers(self) -> list[WorkerInfo]:
        client, keys = self._store.client, self._store.keys
        with our_errors():
            names: Any = await client.zrangebyscore(keys.workers, time.time() - _SIGN_OF_LIFE, "+inf")
            told = await client.hmget(keys.worker_facts, names) if names else []
        return [info for each in told if each and (info := _worker(each))]

    async def _fields(self, job_id: str, *names: str) -> dict[str, str]:
        self._check(job_id)
        with our_errors():
            values: Any = await self._store.client.hmget(self._store.keys.job(job_id), ["status", *names])
        if values[0] is None:
            raise _unknown()
        return {
            name: "" if value is None else value.decode()
            for name, value in zip(names, values[1:], strict=True)
        }

    async def _outcome(
        self,
        status: bytes,
        _: bytes,
        result: bytes,
        blob: bytes,
        slug: bytes,
        detail: bytes,
        payload: bytes | None,
    ) -> Result:
        if status != b"done":
            raise read_error(slug.decode(), detail.decode())
        if payload is None:
            with our_errors():
                [payload] = await self._store.blobs.get([blob.decode()])
        if payload is None:
            raise _unknown()
        return read_result(result, payload)

    async def _news(self, job_id: str, seen: str) -> list[Event]:
        with our_errors():
            entries: Any = await self._store.client.xrange(
                self._store.keys.events(job_id), f"({seen}", "+", 100
            )
        return [_event(entry_id, fields) for entry_id, fields in entries or []]

    @staticmethod
    def _check(job_id: str) -> None:
        """Only ids as we make them go into names of keys."""
        if not _JOB_ID.fullmatch(job_id):
            raise _unknown()


def _event(entry_id: bytes, fields: dict[bytes, bytes]) -> Event:
    data: dict[str, Any] = json.loads(fields[b"data"])
    return Event(entry_id.decode(), cast(EventName, fields[b"name"].decode()), float(fields[b"at"]), data)


def _worker(told: str | bytes) -> WorkerInfo | None:
    """None for one of another version that tells other things of itself."""
    try:
        return WorkerInfo(**json.loads(told))
    except (TypeError, ValueError):
        return None


def _unknown() -> JobUnknown:
    return JobUnknown("there is no such job, or its result has expired")
