# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The batching loop: take what waits as soon as the handler is free, run it in a thread, report each job.

fetch ── handler(batch) in its thread ── finish, job by job
           │    └─ progress, previews ── publish
           └─ meanwhile: renew leases; whoever is canceled, late or lost learns of it at its next check
beside it: sweep up after dead workers
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, cast

from picogram.errors import BrokerUnavailable, PicogramError
from picogram.jobs.broker import BatchLimits, Broker
from picogram.jobs.cancellation import end
from picogram.jobs.control import Listener
from picogram.jobs.isolation import run_isolated
from picogram.jobs.job import Handler, Job, Outcome, Result
from picogram.jobs.observer import Ending, Observer
from picogram.jobs.state import EventName

_logger = logging.getLogger("picogram.jobs")
T = TypeVar("T")
Told = asyncio.Queue[tuple[Job, EventName, Mapping[str, Any]] | None]
_RENEWAL: Final = 0.5
"""Seconds between renewals at most, for they are also how a running job learns of its cancellation."""
_GLANCE: Final = 0.5
"""Seconds to wait for jobs at a time, and so the most that a stop takes to be seen."""
_BACKOFF: Final = 2.0
"""Seconds between tries at most while the broker is away."""


class Worker:
    """Runs one step's handler, one batch at a time and always in the same thread.

    It never waits for a batch to fill unless told to linger (work-conserving): under load, batches grow while it is busy.
    """

    def __init__(
        self,
        broker: Broker,
        step: str,
        handler: Handler,
        limits: BatchLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.step = step
        self.busy = False
        self._broker = broker
        self._handler = handler
        self._limits = limits or BatchLimits()
        self._observer = observer or Observer()
        self._stopping = False
        self._to_the_end = False
        self._running: list[Job] = []

    async def run(self) -> None:
        """Work until ``stop``; what was fetched is finished."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"picogram-{self.step}")
        sweeping = asyncio.create_task(self._sweep())
        try:
            while batch := await self._next():
                await self._work(batch, thread)
        finally:
            await end(sweeping)
            thread.shutdown(wait=False, cancel_futures=True)

    def stop(self, *, empty_queue: bool = False) -> None:
        """Take nothing new; ``empty_queue``: but what waits now, for nobody else will come for it."""
        self._stopping, self._to_the_end = True, empty_queue

    async def abandon(self) -> None:
        """Hand back what still runs, for the process will not wait for it."""
        await self._broker.release(self._running)

    async def _next(self) -> list[Job]:
        """A batch, or an empty list when there is no more to do."""
        # Never canceled: a fetch that is cut off may have taken jobs, which then wait for their lease to run out.
        while not self._stopping:
            try:
                batch = await self._broker.fetch(self.step, self._limits, _GLANCE)
            except Exception as error:
                _log(error, "no jobs could be fetched")
                await asyncio.sleep(_GLANCE * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                continue
            if batch and self._stopping and not self._to_the_end:
                await self._broker.release(batch)
                return []
            if batch:
                return batch
        try:
            return await self._broker.fetch(self.step, self._limits, wait=0) if self._to_the_end else []
        except BrokerUnavailable:
            return []

    async def _work(self, batch: list[Job], thread: ThreadPoolExecutor) -> None:
        self._running, self.busy = batch, True
        started, clock = time.time(), time.perf_counter()
        self._observer.fetched(self.step, batch)
        told: Told = asyncio.Queue()
        helpers = [asyncio.create_task(self._renew(batch)), asyncio.create_task(self._publish(told))]
        loop = asyncio.get_running_loop()
        for job in batch:
            job.control.listen(_teller(loop, told, job))
        try:
            outcomes = await loop.run_in_executor(thread, self._call, batch)
            ran = time.perf_counter() - clock
            self._observer.batch(self.step, batch[0].task, len(batch), ran)
            told.put_nowait(None)
            await helpers[1]  # what was told comes before the end
            await asyncio.gather(
                *(self._finish(*each, started, ran) for each in zip(batch, outcomes, strict=True))
            )
        finally:
            await end(*helpers)
            self._running, self.busy = [], False

    def _call(self, batch: list[Job]) -> list[Outcome]:
        with self._observer.started(self.step, batch):
            return run_isolated(self._handler, batch)

    async def _finish(self, job: Job, outcome: Outcome, started: float, ran: float) -> None:
        ending: Ending
        if isinstance(outcome, Result):
            queued = max(0.0, started - job.queued_at)
            outcome = replace(outcome, timings=_sum(job.timings, {"queue": queued, "run": ran}))
            ending = "moved" if len(job.route) > 1 else "done"
        elif isinstance(outcome, PicogramError):
            ending = "failed"
        else:
            ending = "error"
            self._observer.failed(self.step, job, outcome)
        try:
            # Past two leases the job is another worker's.
            async with asyncio.timeout(2 * self._broker.lease_seconds):
                in_time = await self._patiently(partial(self._broker.finish, job, outcome))
        except TimeoutError:
            in_time = False
        self._observer.finished(self.step, job, outcome, ending if in_time else "late")

    async def _renew(self, batch: list[Job]) -> None:
        while True:
            await asyncio.sleep(min(_RENEWAL, self._broker.lease_seconds / 3))
            try:
                given_up = await self._broker.renew(batch)
            except Exception as error:
                _log(error, "leases could not be renewed")
                continue
            for job in batch:
                if job.id in given_up:
                    job.control.cancel()

    async def _publish(self, told: Told) -> None:
        while each := await told.get():
            job, name, data = each
            try:
                await self._broker.publish(job, name, {"step": job.route[0], **data})
            except Exception as error:
                _log(error, "progress could not be told")  # which nobody misses

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._broker.lease_seconds / 4 * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
            try:
                self._observer.swept(self.step, await self._broker.sweep(self.step))
            except Exception as error:
                _log(error, "nothing could be swept up")

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer, tried again until the broker is there."""
        pause = 0.05
        while True:
            try:
                return await call()
            except Exception as error:
                _log(error, "a job could not be finished")
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(_BACKOFF, 2 * pause)


def _log(error: Exception, what: str) -> None:
    """A broker that is away is what its health check tells; anything else is a fault that no loop may end for."""
    if not isinstance(error, BrokerUnavailable):
        _logger.error(what, exc_info=error)


def _teller(loop: asyncio.AbstractEventLoop, told: Told, job: Job) -> Listener:
    """Carries what the handler's thread tells into the event loop."""

    def tell(name: str, data: Mapping[str, Any]) -> None:
        loop.call_soon_threadsafe(told.put_nowait, (job, cast(EventName, name), data))

    return tell


def _sum(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {phase: before.get(phase, 0.0) + seconds for phase, seconds in now.items()}
