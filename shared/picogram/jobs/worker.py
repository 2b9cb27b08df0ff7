# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The batching loop: take what waits as soon as the handler is free, run it in a thread, report each job.

fetch ── handler(batch) in its thread ── finish, job by job
           │    └─ progress, previews ── publish
           └─ meanwhile: renew leases; whoever is canceled, late or lost learns of it at its next check
beside it: sweep up after dead workers

Whatever goes wrong, no loop here ends but by being stopped: a broker that is away is asked again, anything else is logged
once and tried again. What ends all the same ends ``run``, so that whoever watches it knows.
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
from picogram.jobs.observer import Ending, HarmlessObserver, Observer
from picogram.jobs.state import EventName

T = TypeVar("T")
logger = logging.getLogger("picogram.jobs")
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
        self._observer = HarmlessObserver(observer or Observer())
        self._stopping = False
        self._to_the_end = False
        self._running: list[Job] = []
        self._complaints: set[str] = set()

    async def run(self) -> None:
        """Work until ``stop``; what was fetched is finished."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"picogram-{self.step}")
        sweeping = asyncio.create_task(self._sweep())
        try:
            while batch := await self._next(sweeping):
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

    async def _next(self, sweeping: asyncio.Task[None]) -> list[Job]:
        """A batch, or an empty list when there is no more to do. Raises what ended the sweeping."""
        # Never canceled: a fetch that is cut off may have taken jobs, which then wait for their lease to run out.
        while not self._stopping:
            if sweeping.done():
                sweeping.result()
            batch = await self._tried("fetch", self._broker.fetch(self.step, self._limits, _GLANCE))
            if batch is None:
                await asyncio.sleep(_GLANCE * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                continue
            if batch and self._stopping and not self._to_the_end:
                await self._tried("release", self._broker.release(batch))
                return []
            if batch:
                return batch
        last = self._broker.fetch(self.step, self._limits, wait=0) if self._to_the_end else None
        return (await self._tried("fetch", last) if last else None) or []

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
            outcomes = await self._outcomes(batch, thread)
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

    async def _outcomes(self, batch: list[Job], thread: ThreadPoolExecutor) -> list[Outcome]:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._call, batch)
        except Exception as error:  # not the handler's: no thread to be had, say
            return [error for _ in batch]

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
                try:
                    in_time = await self._patiently(partial(self._broker.finish, job, outcome))
                except TimeoutError:
                    raise
                except Exception as error:  # the outcome cannot be reported: then that is the outcome
                    self._observer.failed(self.step, job, error)
                    outcome, ending = error, "error"
                    in_time = await self._patiently(partial(self._broker.finish, job, error))
        except Exception:
            in_time = False
        self._observer.finished(self.step, job, outcome, ending if in_time else "late")

    async def _renew(self, batch: list[Job]) -> None:
        while True:
            await asyncio.sleep(min(_RENEWAL, self._broker.lease_seconds / 3))
            given_up = await self._tried("renew", self._broker.renew(batch)) or ()
            for job in batch:
                if job.id in given_up:
                    job.control.cancel()

    async def _publish(self, told: Told) -> None:
        while each := await told.get():
            job, name, data = each
            # Nobody misses a sign of progress.
            await self._tried("publish", self._broker.publish(job, name, {"step": job.route[0], **data}))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._broker.lease_seconds / 4 * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
            if swept := await self._tried("sweep", self._broker.sweep(self.step)):
                self._observer.swept(self.step, swept)

    async def _tried(self, what: str, asked: Awaitable[T]) -> T | None:
        """The broker's answer; None where it is away, or where it fails in a way that nobody thought of."""
        try:
            return await asked
        except BrokerUnavailable:
            return None
        except Exception:
            if what not in self._complaints:
                self._complaints.add(what)
                logger.exception("the broker fails at %s; it is tried again", what)
            return None

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer, tried again until the broker is there."""
        pause = 0.05
        while True:
            try:
                return await call()
            except BrokerUnavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(_BACKOFF, 2 * pause)


def _teller(loop: asyncio.AbstractEventLoop, told: Told, job: Job) -> Listener:
    """Carries what the handler's thread tells into the event loop."""

    def tell(name: str, data: Mapping[str, Any]) -> None:
        loop.call_soon_threadsafe(told.put_nowait, (job, cast(EventName, name), data))

    return tell


def _sum(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {phase: before.get(phase, 0.0) + seconds for phase, seconds in now.items()}
