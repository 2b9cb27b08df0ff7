# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Between requests and workers: the broker, and the workers that live in this process.

Without a job store all steps are done here, each by a worker with a thread of its own, so that a slow step holds up only
the requests that need it. With one, only the inspector is.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog

from picogram.errors import BrokerUnavailable, JobUnknown, PicogramError
from picogram.jobs import BatchLimits, Broker, Job, JobState, Observer, Result, Worker, WorkerInfo
from picogram.version import VERSION
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.problems import not_ready
from picogram_gateway.telemetry import STEPS
from picogram_gateway.workers import Backend

logger = structlog.get_logger("picogram.gateway")
_SIGN_OF_LIFE: Final = 20.0
_PROBE_TIMEOUT: Final = 2.0
_MODELS_AGAIN: Final = 30.0
_STORE_PAUSE: Final = 0.25
_DRAIN_PAUSE: Final = 0.01
_LAST_BATCH: Final = 10.0
"""Seconds for the inspector's running batch to end; another gateway gets what is not done by then."""


class Dispatcher:
    """Starts, watches and ends the workers of this process; all talk with the broker goes through here."""

    def __init__(
        self,
        settings: GatewaySettings,
        backend: Backend,
        broker: Broker,
        observer: Observer,
    ) -> None:
        self.broker = broker
        self.warm = False
        self.not_warm = "the models are not loaded yet"
        self.draining = asyncio.Event()
        self._settings = settings
        self._backend = backend
        self._workers = [
            Worker(broker, step, handler, _limits(settings, step), observer)
            for step, handler in backend.handlers.items()
        ]
        self._known = _who(backend)
        self._tasks: list[asyncio.Task[None]] = []
        self._helpers: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[Any]] = set()
        self._seconds_per_job = 1.0

    @property
    def embedded(self) -> bool:
        """Whether nobody else does any work."""
        return self._settings.redis_url is None

    def start(self) -> None:
        """Start the workers, and load the models meanwhile."""
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        self._helpers = [asyncio.create_task(self._warm_up()), asyncio.create_task(self._announce())]

    def drain(self) -> None:
        """Not ready any more; event streams end, and their readers go on elsewhere."""
        self.draining.set()

    async def stop(self) -> None:
        """Finish what was accepted, where nobody else will, within ``drain_seconds``; then let the broker go."""
        self.drain()
        with suppress(TimeoutError, BrokerUnavailable):
            async with asyncio.timeout(self._settings.drain_seconds if self.embedded else _LAST_BATCH):
                await self._finish()
        if not self.embedded:
            for worker in self._workers:
                await _quietly(worker.abandon())
        for task in (*self._tasks, *self._helpers):
            task.cancel()
        if left := (*self._tasks, *self._helpers, *self._errands):
            await asyncio.wait(left, timeout=_LAST_BATCH)
        await self.broker.close()

    async def check(self) -> None:
        """Returns if requests should be sent here; raises the problem that says why not, or BrokerUnavailable."""
        if self.draining.is_set():
            raise not_ready("the server is shutting down")
        if broken := self.broken():
            raise not_ready(broken)
        if not self.warm:
            raise not_ready(self.not_warm)
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await self.broker.announce(self._known[0])  # a write: a store that only reads does no job
        except TimeoutError:
            raise BrokerUnavailable("the job store does not answer") from None

    def broken(self) -> str:
        """Empty, or what has ended that nothing but a new process brings back."""
        if self.draining.is_set():
            return ""
        if any(task.done() for task in self._tasks):
            return "a worker of this server has died"
        announcing = self._helpers[1:]
        return "signs of life have ended" if any(task.done() for task in announcing) else ""

    def retry_after(self) -> int:
        """Seconds until a full queue should have drained, 1 to 60."""
        return min(60, max(1, math.ceil(self._seconds_per_job * self._settings.queue_depth)))

    async def owned(self, job_id: str, owner: str) -> JobState:
        """The state of a job of that owner. Raises JobUnknown for any other's, as if there were none."""
        state = await self.broker.state(job_id)
        if state.owner not in ("", owner):
            raise JobUnknown("there is no such job, or its result has expired")
        return state

    async def wait(self, job_id: str, seconds: float | None) -> Result:
        """The job's result. Raises as ``Broker.result``, but a job store that restarts meanwhile ends no wait."""
        started = time.monotonic()
        while True:
            left = None if seconds is None else max(0.0, seconds - (time.monotonic() - started))
            try:
                result = await self.broker.result(job_id, left)
                break
            except BrokerUnavailable:
                patience = self._settings.job_timeout_seconds
                if left == 0 or time.monotonic() - started > patience or await self._ended(job_id):
                    raise
                await asyncio.sleep(_STORE_PAUSE)
        self._seconds_per_job += 0.1 * (result.timings.get("run", 0.0) - self._seconds_per_job)
        return result

    async def _ended(self, job_id: str) -> bool:
        """Whether the store is there and says so: then an error is the job's own."""
        with suppress(BrokerUnavailable):
            return (await self.broker.state(job_id)).final
        return False

    def later(self, errand: Coroutine[Any, Any, Any]) -> None:
        """Do it beside; an answer need not wait for it, and nobody needs to know if it fails."""
        task = asyncio.create_task(_quietly(errand))
        self._errands.add(task)
        task.add_done_callback(self._dropped)

    def drop(self, *tasks: asyncio.Task[Any]) -> None:
        """Cancel them, and do not wait for it: a client of a job store may swallow a cancellation."""
        for task in tasks:
            task.cancel()
            self._errands.add(task)
            task.add_done_callback(self._dropped)

    def job(self, patience: int = 1, **fields: Any) -> Job:
        """A job with the deadline that the settings give, ``patience`` times as far away."""
        return Job(deadline=time.time() + patience * self._settings.job_timeout_seconds, **fields)

    def _dropped(self, task: asyncio.Task[Any]) -> None:
        self._errands.discard(task)
        if not task.cancelled():
            task.exception()  # which nobody wants to hear of

    async def _finish(self) -> None:
        if self.embedded:
            # Before any worker stops, for a stopped one would miss what moves on to it.
            while any([await self.broker.depth(step) for step in STEPS]):  # noqa: ASYNC110 - a broker tells nobody
                await asyncio.sleep(_DRAIN_PAUSE)
        for worker in self._workers:
            worker.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _warm_up(self) -> None:
        while not self.warm:
            try:
                await asyncio.to_thread(self._backend.warm_up)
            except Exception as error:
                logger.exception("the models cannot be loaded; they are tried again")
                self.not_warm = f"the models cannot be loaded, and are tried again: {error}"
                await asyncio.sleep(_MODELS_AGAIN)
            else:
                self.warm = True

    async def _announce(self) -> None:
        """Tell the broker, and so ``/v1/models``, who works here."""
        while not self.draining.is_set():
            for worker in self._known:
                try:
                    await self.broker.announce(worker)
                except BrokerUnavailable:
                    break
                except Exception:
                    logger.exception("a sign of life failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_SIGN_OF_LIFE):
                    await self.draining.wait()


def _who(backend: Backend) -> list[WorkerInfo]:
    """The workers of this process."""
    since, facts = time.time(), {"host": socket.gethostname(), "process": os.getpid()}
    names = {step: f"{facts['host']}-{facts['process']}-{step}" for step in backend.handlers}
    return [WorkerInfo(name, step, VERSION, since, facts) for step, name in names.items()]


def _limits(settings: GatewaySettings, step: str) -> BatchLimits:
    count = settings.max_text_batch if step == "lmm" else settings.max_batch
    return BatchLimits(count, settings.max_batch_pixels, settings.linger_seconds)


async def _quietly(errand: Coroutine[Any, Any, Any]) -> None:
    with suppress(PicogramError):
        await errand
