# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The broker of one process: queues in memory, one event loop, nothing survives a crash."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from picogram.errors import JobCanceled, JobTimeout, QueueFull
from picogram.jobs.broker import BatchLimits
from picogram.jobs.job import Job, Outcome, Result


class MemoryBroker:
    """See ``Broker``. All methods belong to one event loop, so that nothing happens between two awaits."""

    def __init__(self, max_depth: int = 64) -> None:
        self._max_depth = max_depth
        self._waiting: defaultdict[str, list[Job]] = defaultdict(list)
        self._running: dict[str, Job] = {}
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}
        self._deadlines: dict[str, float | None] = {}
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def submit(self, job: Job) -> None:
        if await self.depth(job.step) >= self._max_depth:
            raise QueueFull(f"{self._max_depth} jobs are waiting already")
        self._outcomes[job.id] = asyncio.get_running_loop().create_future()
        self._deadlines[job.id] = job.deadline
        self._enqueue(job)

    async def result(self, job_id: str) -> Result:
        future, deadline = self._outcomes[job_id], self._deadlines[job_id]
        left = None if deadline is None else max(0.0, deadline - time.time())
        try:
            async with asyncio.timeout(left):
                outcome = await asyncio.shield(future)
        except TimeoutError:
            outcome = JobTimeout("the deadline passed before the job was done")
        except asyncio.CancelledError:
            await self.cancel(job_id)
            raise
        self._forget(job_id)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def cancel(self, job_id: str) -> bool:
        future = self._outcomes.get(job_id)
        if future is None or future.done():
            self._forget(job_id)
            return False
        future.set_result(JobCanceled("the job was canceled"))
        self._forget(job_id)
        return True

    async def fetch(self, step: str, limits: BatchLimits, wait: float | None = None) -> list[Job]:
        try:
            async with asyncio.timeout(wait):
                while True:
                    self._arrivals[step].clear()
                    if batch := self._take(step, limits):
                        return batch
                    await self._arrivals[step].wait()
        except TimeoutError:
            return []

    async def finish(self, job: Job, outcome: Outcome) -> None:
        self._running.pop(job.id, None)
        future = self._outcomes.get(job.id)
        if future is None or future.done():
            return
        following = job.after(outcome) if isinstance(outcome, Result) else outcome
        if isinstance(following, Job):
            self._enqueue(following)
        else:
            future.set_result(following)

    async def depth(self, step: str) -> int:
        return len(self._waiting[step]) + sum(job.step == step for job in self._running.values())

    def _enqueue(self, job: Job) -> None:
        self._waiting[job.step].append(job)
        self._arrivals[job.step].set()

    def _take(self, step: str, limits: BatchLimits) -> list[Job]:
        """Move a batch from waiting to running; the oldest live job decides what is compatible."""
        self._drop_expired(step)
        batch: list[Job] = []
        cost = 0
        for job in self._waiting[step]:
            if batch and (job.batch_key != batch[0].batch_key or cost + job.cost > limits.cost):
                continue
            batch.append(job)
            cost += job.cost
            if len(batch) >= limits.count:
                break
        taken = {job.id for job in batch}
        self._waiting[step] = [job for job in self._waiting[step] if job.id not in taken]
        self._running.update((job.id, job) for job in batch)
        return batch

    def _drop_expired(self, step: str) -> None:
        now = time.time()
        for job in [job for job in self._waiting[step] if job.expired(now)]:
            self._waiting[step].remove(job)
            future = self._outcomes.get(job.id)
            if future is not None and not future.done():
                future.set_result(JobTimeout("the deadline passed while the job waited"))

    def _forget(self, job_id: str) -> None:
        """Drop every trace but a running handler's, which ``finish`` removes."""
        self._outcomes.pop(job_id, None)
        self._deadlines.pop(job_id, None)
        for step, jobs in self._waiting.items():
            self._waiting[step] = [job for job in jobs if job.id != job_id]
