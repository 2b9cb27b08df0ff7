# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The batching loop: take what waits as soon as the handler is free, run it in a thread, report each job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from picogram.jobs.broker import BatchLimits, Broker
from picogram.jobs.job import Handler, Job, Outcome, Result


class Worker:
    """Runs one step's handler, one batch at a time and always in the same thread.

    It never waits for a batch to fill (work-conserving): under load, batches grow while it is busy.
    """

    def __init__(
        self, broker: Broker, step: str, handler: Handler, limits: BatchLimits | None = None
    ) -> None:
        self.step = step
        self._broker = broker
        self._handler = handler
        self._limits = limits or BatchLimits()
        self._stopping = False
        self._fetching: asyncio.Future[list[Job]] | None = None

    async def run(self) -> None:
        """Work until ``stop``, and then until nothing waits."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"picogram-{self.step}")
        try:
            while batch := await self._next():
                await self._work(batch, thread)
        finally:
            thread.shutdown(wait=False)

    def stop(self) -> None:
        """Take no new waits; jobs already queued are still done."""
        self._stopping = True
        if self._fetching:
            self._fetching.cancel()

    async def _next(self) -> list[Job]:
        """A batch, or an empty list when stopping and drained."""
        if not self._stopping:
            self._fetching = asyncio.ensure_future(self._broker.fetch(self.step, self._limits))
            try:
                return await self._fetching
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
            finally:
                self._fetching = None
        return await self._broker.fetch(self.step, self._limits, wait=0)

    async def _work(self, batch: list[Job], thread: ThreadPoolExecutor) -> None:
        started, clock = time.time(), time.perf_counter()
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(thread, run_isolated, self._handler, batch)
        ran = time.perf_counter() - clock
        for job, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Result):
                queued = max(0.0, started - job.queued_at)
                outcome = replace(outcome, timings=_sum(job.timings, {"queue": queued, "run": ran}))
            await self._broker.finish(job, outcome)


def run_isolated(handler: Handler, batch: list[Job]) -> list[Outcome]:
    """The handler's outcomes; if it fails as a whole, each job is tried alone, so that one fails but one."""
    try:
        outcomes = handler(batch)
        if len(outcomes) != len(batch):
            raise RuntimeError(f"the handler gave {len(outcomes)} outcomes for {len(batch)} jobs")
        return outcomes
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [outcome for job in batch for outcome in run_isolated(handler, [job])]


def _sum(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {phase: before.get(phase, 0.0) + seconds for phase, seconds in now.items()}
