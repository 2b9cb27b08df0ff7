# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The broker of one process: queues in memory, one event loop, nothing survives a crash."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from picogram.errors import JobCanceled, JobConflict, JobTimeout, JobUnknown, PicogramError, QueueFull
from picogram.jobs.broker import BatchLimits, Swept
from picogram.jobs.control import JobControl
from picogram.jobs.job import PRIORITIES, Job, Outcome, Priority, Result
from picogram.jobs.record import Record, Retention
from picogram.jobs.state import Event, EventName, JobState, WorkerInfo, as_failure

_SIGN_OF_LIFE = 60.0


class MemoryBroker:
    """See ``Broker``. All methods belong to one event loop, so that nothing happens between two awaits."""

    lease_seconds: float = 30.0

    def __init__(
        self, max_depth: int = 64, result_ttl: float = 600.0, max_result_bytes: int = 256 * 1024 * 1024
    ) -> None:
        self._max_depth = max_depth
        self._max_bytes = max_result_bytes
        self._retention = Retention(result_ttl, max_result_bytes)
        self._records: dict[str, Record] = {}
        self._waiting: defaultdict[str, list[Job]] = defaultdict(list)
        self._running: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._workers: dict[str, tuple[float, WorkerInfo]] = {}

    async def close(self) -> None:
        """Nothing to let go of."""

    async def submit(self, job: Job) -> str:
        self._prune()
        if job.key and (earlier := self._keys.get((job.owner, job.key))):
            if self._records[earlier].job.fingerprint != job.fingerprint:
                raise JobConflict("this idempotency key came with another request before")
            return earlier
        if await self.depth(job.step) >= self._max_depth:
            raise QueueFull(f"{self._max_depth} jobs are waiting already")
        if self._waiting_bytes() + len(job.payload) > self._max_bytes:
            raise QueueFull(f"jobs with more than {self._max_bytes} bytes are waiting already")
        if job.key:
            self._keys[job.owner, job.key] = job.id
        self._records[job.id] = Record(job)
        self._enqueue(job)
        return job.id

    async def result(self, job_id: str, wait: float | None = None) -> Result:
        record = self._record(job_id)
        until = record.deadline if wait is None else min(record.deadline, time.time() + wait)
        try:
            async with asyncio.timeout(None if until == float("inf") else max(0.0, until - time.time())):
                await record.ended.wait()
        except TimeoutError:
            if time.time() < record.deadline:
                raise
            self._end(record, JobTimeout("the deadline passed before the job was done"))
        outcome = record.outcome
        if isinstance(outcome, Result):
            return outcome
        assert outcome is not None  # noqa: S101 - it has ended
        raise outcome.with_traceback(None)

    async def state(self, job_id: str) -> JobState:
        record = self._record(job_id)
        if not record.ended.is_set() and time.time() >= record.deadline:
            self._end(record, JobTimeout("the deadline passed before the job was done"))
        return record.state()

    async def events(self, job_id: str, after: str = "") -> AsyncIterator[Event]:
        record = self._record(job_id)
        seen = int(after) if after.isascii() and after.isdigit() else 0
        while True:
            news = [event for event in record.events if int(event.id) > seen]
            for event in news:
                yield event
                seen = int(event.id)
            if record.ended.is_set() and not any(int(event.id) > seen for event in record.events):
                return
            if not news:
                await record.next_event()

    async def cancel(self, job_id: str) -> bool:
        record = self._record(job_id)
        if record.ended.is_set():
            return False
        self._end(record, JobCanceled("the job was canceled"))
        return True

    async def forget(self, job_id: str) -> None:
        record = self._records.get(job_id)
        if record and record.ended.is_set():
            self._drop(job_id)

    async def depth(self, step: str, priority: Priority | None = None) -> int:
        running = [job for job in self._running.values() if job.step == step]
        return sum(priority in (None, job.priority) for job in self._waiting[step] + running)

    async def workers(self) -> list[WorkerInfo]:
        since = time.time() - _SIGN_OF_LIFE
        return [worker for at, worker in self._workers.values() if at >= since]

    async def fetch(self, step: str, limits: BatchLimits, wait: float | None = None) -> list[Job]:
        try:
            async with asyncio.timeout(wait):
                while True:
                    self._arrivals[step].clear()
                    self._drop_expired(step)
                    if self._waiting[step]:
                        break
                    await self._arrivals[step].wait()
        except TimeoutError:
            return []
        if limits.linger_seconds:
            await asyncio.sleep(limits.linger_seconds)
        return self._take(step, limits)

    async def renew(self, jobs: Sequence[Job]) -> set[str]:
        return {
            job.id
            for job in jobs
            if job.expired(time.time()) or job.id not in self._records or self._records[job.id].ended.is_set()
        }

    async def publish(self, job: Job, name: EventName, data: Mapping[str, Any]) -> None:
        record = self._records.get(job.id)
        if record and not record.ended.is_set():
            record.tell(name, data)

    async def finish(self, job: Job, outcome: Outcome) -> bool:
        record = self._records.get(job.id)
        if not self._let_go(job) or record is None or record.ended.is_set():
            return False
        if job.expired(time.time()):
            outcome = JobTimeout("the deadline passed before the job was done")
        following = job.after(outcome) if isinstance(outcome, Result) else as_failure(outcome)
        if isinstance(following, Job):
            self._enqueue(following)
        else:
            self._end(record, following)
        return True

    async def release(self, jobs: Sequence[Job]) -> None:
        for job in reversed([job for job in jobs if self._let_go(job)]):
            record = self._records.get(job.id)
            if record and not record.ended.is_set():
                self._enqueue(replace(job, control=JobControl()), front=True)

    async def sweep(self, step: str) -> Swept:
        """Workers of this process die with the broker."""
        return Swept()

    async def announce(self, worker: WorkerInfo) -> None:
        self._workers[worker.name] = (time.time(), worker)

    def _let_go(self, job: Job) -> bool:
        """Whether it was this worker's: a job that was handed back and fetched again has another control."""
        held = self._running.get(job.id)
        if held is None or held.control is not job.control:
            return False
        del self._running[job.id]
        return True

    def _waiting_bytes(self) -> int:
        return sum(len(job.payload) for jobs in self._waiting.values() for job in jobs)

    def _record(self, job_id: str) -> Record:
        self._prune()
        if job_id not in self._records:
            raise JobUnknown("there is no such job, or its result has expired")
        return self._records[job_id]

    def _enqueue(self, job: Job, *, front: bool = False) -> None:
        self._records[job.id].queued(job)
        self._waiting[job.step].insert(0 if front else len(self._waiting[job.step]), job)
        self._arrivals[job.step].set()

    def _take(self, step: str, limits: BatchLimits) -> list[Job]:
        """Move a batch from waiting to running; the oldest job of the highest priority decides what is compatible."""
        batch: list[Job] = []
        cost = 0
        for job in sorted(self._waiting[step], key=lambda job: PRIORITIES.index(job.priority)):
            if batch and (job.batch_key != batch[0].batch_key or cost + job.cost > limits.max_cost):
                continue
            batch.append(job)
            cost += job.cost
            if len(batch) >= limits.max_jobs:
                break
        taken = {job.id for job in batch}
        self._waiting[step] = [job for job in self._waiting[step] if job.id not in taken]
        for job in batch:
            self._running[job.id] = job
            self._records[job.id].running(job)
        return batch

    def _drop_expired(self, step: str) -> None:
        now = time.time()
        for job in [job for job in self._waiting[step] if job.expired(now)]:
            self._end(self._records[job.id], JobTimeout("the deadline passed while the job waited"))

    def _end(self, record: Record, outcome: Result | PicogramError) -> None:
        """Nothing more happens to the job; a handler that runs it is told so."""
        job = record.job
        if held := self._running.get(job.id):
            held.control.cancel()
        self._waiting[job.step] = [each for each in self._waiting[job.step] if each.id != job.id]
        record.end(outcome)
        self._retention.keep(job.id, len(outcome.payload) if isinstance(outcome, Result) else 0)
        self._prune()

    def _prune(self) -> None:
        for job_id in self._retention.surplus():
            self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        """Every trace but a running handler's, which ``finish`` removes."""
        self._retention.drop(job_id)
        if record := self._records.pop(job_id, None):
            self._keys.pop((record.job.owner, record.job.key), None)
