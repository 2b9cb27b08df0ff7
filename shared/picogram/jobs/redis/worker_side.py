# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The workers' half of the Redis broker: fetch, keep, finish, hand back, sweep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from picogram.errors import JobFailed, JobUnknown
from picogram.jobs.broker import BatchLimits, Swept
from picogram.jobs.control import JobControl
from picogram.jobs.job import Job, Outcome, Result
from picogram.jobs.record import plain_event
from picogram.jobs.redis import scripts
from picogram.jobs.redis.blobs import new_name
from picogram.jobs.redis.connection import our_errors
from picogram.jobs.redis.envelope import blob_of, read_job, write_job, write_result
from picogram.jobs.redis.key_names import GROUP
from picogram.jobs.redis.store_client import Store
from picogram.jobs.state import EventName, WorkerInfo, as_failure

_BLOCK: Final = 0.5
"""Seconds to block on the server at a time; longer would only matter to how fast a stop is seen."""
_WINDOW: Final = 32
"""How many jobs that do not fit a batch are passed over in search of one that does."""
_SILENT: Final = 3600.0
_DEAD_LETTERS: Final = 10_000
_FOREIGN: Final = "the job was written by another version of Picogram; upgrade workers before gateways"


@dataclass(frozen=True)
class Lease:
    """Where a fetched job's entry is, and where its payload lies."""

    stream: str
    entry: str
    job_id: str
    blob: str


class Workers:
    """Methods as in ``Broker``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By control, which a job has anew each time it is fetched: so a lease that was handed back is not found again.
        self._leases: WeakKeyDictionary[JobControl, Lease] = WeakKeyDictionary()
        self._joined: set[str] = set()
        self._adrift = False

    async def fetch(self, step: str, limits: BatchLimits, wait: float | None = None) -> list[Job]:
        until = None if wait is None else time.monotonic() + wait
        self._joined.add(step)
        # Until the fetch comes back: what it took by then might be lost on the way.
        adrift, self._adrift = self._adrift, True
        batch = await self._take(step, limits, await self._strays(step) if adrift else ())
        while True:
            if not batch:
                left = _BLOCK if until is None else min(_BLOCK, until - time.monotonic())
                first = await self._block(step, left) if left > 0 else []
                if first and limits.linger_seconds:
                    await asyncio.sleep(limits.linger_seconds)
                batch = await self._take(step, limits, first) if first else []
            elif limits.linger_seconds and len(batch) < limits.max_jobs:
                await asyncio.sleep(limits.linger_seconds)
                batch += await self._take(step, _what_is_left(limits, batch), after=batch)
            if batch or (until is not None and time.monotonic() >= until):
                self._adrift = False
                return batch
            batch = await self._take(step, limits)

    async def renew(self, jobs: Sequence[Job]) -> set[str]:
        streams, entries = self._held(jobs)
        lost = await self._store.call("renew", streams, [self._store.name, time.time(), *entries])
        unheld = {job.id for job in jobs if job.control not in self._leases}
        return unheld | {job_id.decode() for job_id in lost}

    async def publish(self, job: Job, name: EventName, data: Mapping[str, Any]) -> None:
        progress = data["fraction"] if name == "progress" else ""
        await self._store.call(
            "publish", [], [job.id, time.time(), name, json.dumps(plain_event(data)), progress]
        )

    async def finish(self, job: Job, outcome: Outcome) -> bool:
        lease = self._leases.get(job.control)
        if lease is None:
            return False
        following = job.after(outcome) if isinstance(outcome, Result) else as_failure(outcome)
        blob, along = "", list[scripts.Argument](["0", ""])
        if not isinstance(following, Exception):
            # A payload that a step leaves as it was stays where it is.
            same = following.payload is job.payload
            blob = lease.blob if same else new_name(job.id)
            if not same:
                along = await self._store.keep(blob, following.payload, self._store.stay(job))
        in_time = await self._report(lease, following, blob, along, int(1000 * self._store.stay(job)))
        self._leases.pop(job.control, None)
        if not self._store.blobs.within and lease.blob != blob:
            # A late worker's result is nobody's, but the payload is still the job's, whoever has it now.
            with our_errors():
                await self._store.blobs.delete(*filter(None, [lease.blob if in_time else blob]))
        return in_time

    async def release(self, jobs: Sequence[Job]) -> None:
        streams, entries = self._held(jobs)
        if entries:
            await self._store.call("release", streams, [self._store.name, time.time(), *entries])
        for job in jobs:
            self._leases.pop(job.control, None)

    async def sweep(self, step: str) -> Swept:
        store = self._store
        streams = [*store.keys.queues(step), store.keys.dead(step), store.keys.sweep(step)]
        times = [int(1000 * store.lease_seconds), store.max_attempts, time.time(), store.ttl]
        swept = Swept(*await store.call("sweep", streams, [*times, int(1000 * _SILENT), _DEAD_LETTERS]))
        with our_errors():
            await store.blobs.sweep()
        return swept

    async def announce(self, worker: WorkerInfo) -> None:
        client, keys, now = self._store.client, self._store.keys, time.time()
        with our_errors():
            await client.hset(keys.worker_facts, worker.name, json.dumps(asdict(worker)))
            await client.zadd(keys.workers, {worker.name: now})
            if silent := await client.zrangebyscore(keys.workers, "-inf", now - _SILENT):
                await client.zrem(keys.workers, *silent)
                await client.hdel(keys.worker_facts, *silent)

    async def leave(self) -> None:
        """Take this worker's name off the queues it took from."""
        for step in self._joined:
            with our_errors():
                await scripts.call(
                    self._store.client, "leave", self._store.keys.queues(step), [self._store.name]
                )

    async def _take(
        self, step: str, limits: BatchLimits, read: Sequence[str | int] = (), after: Sequence[Job] = ()
    ) -> list[Job]:
        """What fits, of the queue and of entries ``read`` already; what fits the batch so far, if there is one."""
        store, streams = self._store, self._store.keys.queues(step)
        batch = "\n".join(after[0].batch_key) if after else ""
        about: list[Any] = [
            store.name,
            limits.max_jobs,
            limits.max_cost,
            time.time(),
            store.ttl,
            batch,
            0,
            _WINDOW,
        ]
        taken: list[Any] = await store.call("fetch", streams, [*about, *read])
        jobs: list[Job] = []
        blobs = [_blob_of(envelope) for *_, envelope, _ in taken]
        elsewhere = [blob for blob, (*_, payload) in zip(blobs, taken, strict=True) if payload is None]
        with our_errors():
            fetched = dict(zip(elsewhere, await store.blobs.get(elsewhere), strict=True))
        for (index, entry, attempt, job_id, envelope, near), blob in zip(taken, blobs, strict=True):
            payload = fetched.get(blob) if near is None else near
            lease = Lease(streams[index - 1], entry.decode(), job_id.decode(), blob)
            if payload is None or not blob:
                reason = JobUnknown("the job's payload has expired") if blob else JobFailed(_FOREIGN)
                await self._report(lease, reason)
                continue
            job = read_job(envelope, payload, attempt)
            self._leases[job.control] = lease
            jobs.append(job)
        return jobs

    async def _block(self, step: str, seconds: float) -> list[str | int]:
        """Wait for an entry: its stream's index and its id, perhaps one of each stream."""
        streams = self._store.keys.queues(step)
        with our_errors():
            try:
                found: Any = await self._store.client.xreadgroup(
                    GROUP,
                    self._store.name,
                    dict.fromkeys(streams, ">"),
                    count=1,
                    block=max(1, int(1000 * seconds)),
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._store.make_groups(streams)
                return []
        read: list[str | int] = []
        for stream, entries in found or []:
            for entry, _ in entries:
                read += [streams.index(stream.decode()) + 1, entry.decode()]
        return read

    async def _strays(self, step: str) -> list[str | int]:
        """Entries given to this worker by an answer that never reached it, as ``_block`` returns them."""
        known = {(lease.stream, lease.entry) for lease in self._leases.values()}
        read: list[str | int] = []
        for index, stream in enumerate(self._store.keys.queues(step), 1):
            with our_errors():
                try:
                    pending: Any = await self._store.client.xpending_range(
                        stream, GROUP, "-", "+", _WINDOW, self._store.name
                    )
                except ResponseError as error:
                    if "NOGROUP" not in str(error):
                        raise
                    continue
            for entry in (each["message_id"].decode() for each in pending):
                if (stream, entry) not in known:
                    read += [index, entry]
        return read

    def _held(self, jobs: Sequence[Job]) -> tuple[list[str], list[str | int]]:
        """Streams, and triples of stream index, entry and job id, of the jobs that are still this worker's."""
        held = [(job.id, lease) for job in jobs if (lease := self._leases.get(job.control))]
        streams = sorted({lease.stream for _, lease in held})
        entries: list[str | int] = []
        for job_id, lease in held:
            entries += [streams.index(lease.stream) + 1, lease.entry, job_id]
        return streams, entries

    async def _report(
        self,
        lease: Lease,
        following: Job | Result | Exception,
        blob: str = "",
        along: Sequence[scripts.Argument] = ("0", ""),
        stay: int = 1,
    ) -> bool:
        store, onward = self._store, ""
        what: list[scripts.Argument]
        if isinstance(following, Job):
            onward = store.keys.queue(following.step, following.priority)
            envelope = write_job(following, blob)
            status, what = (
                "move",
                [following.route[0], "\n".join(following.batch_key), following.cost, envelope],
            )
        elif isinstance(following, Result):
            status, what = "done", ["{}", "result", write_result(following), "blob", blob, "progress", 1]
        else:
            error = following if isinstance(following, JobFailed) else as_failure(following)
            told = {"slug": error.slug, "title": error.title, "detail": str(error)}
            status = "canceled" if error.slug == "job-canceled" else "failed"
            what = [json.dumps(told), "slug", error.slug, "detail", str(error)]
        about: list[Any] = [store.name, lease.entry, lease.job_id, time.time(), store.ttl]
        return bool(
            await store.call(
                "finish", [lease.stream, onward], [*about, status, lease.blob, blob, *along, stay, *what]
            )
        )


def _blob_of(envelope: bytes) -> str:
    """The name of the payload; a name that nothing has where another version wrote the envelope."""
    try:
        return blob_of(envelope)
    except ValueError:
        return ""


def _what_is_left(limits: BatchLimits, batch: Sequence[Job]) -> BatchLimits:
    cost = limits.max_cost - sum(job.cost for job in batch)
    return BatchLimits(limits.max_jobs - len(batch), max(0, cost))
