# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Between requests and workers: submits jobs, waits for them, and gives them up when the client goes away."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request

from picogram.jobs import BatchLimits, Handler, Job, Kind, MemoryBroker, Result, Worker
from picogram_gateway.problems import ProblemError
from picogram_gateway.settings import Settings
from picogram_gateway.steps import Route

logger = structlog.get_logger("picogram.gateway")


def _nothing() -> None:
    """Nothing to warm up."""


@dataclass(frozen=True)
class Backend:
    """Who does the work: a handler per queue, what loads their models, and what they can do."""

    handlers: Mapping[str, Handler]
    warm_up: Callable[[], None] = _nothing
    catalogue: Callable[[], dict[str, Any]] = dict


class Dispatcher:
    """The embedded broker and one worker per queue, within the gateway's event loop.

    Each worker has a thread of its own, so that a slow step holds up only the requests that need it.
    """

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self._settings = settings
        self._backend = backend
        self._broker = MemoryBroker(settings.queue_depth)
        images, texts = BatchLimits(settings.max_batch), BatchLimits(settings.max_text_batch)
        self._workers = [
            Worker(self._broker, step, handler, texts if step == "lmm" else images)
            for step, handler in backend.handlers.items()
        ]
        self._open: set[asyncio.Future[Result]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._warming: asyncio.Task[None] | None = None
        self._seconds_per_job = 1.0
        self.warm = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """Warm, not shutting down, and every worker lives."""
        return self.warm and not self.draining and not any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Start the workers, and load the models meanwhile."""
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        self._warming = asyncio.create_task(self._warm_up())

    async def stop(self) -> None:
        """Finish what was accepted."""
        self.draining = True
        # Before any worker stops, for a stopped one would miss what moves on to it.
        await asyncio.gather(*self._open, return_exceptions=True)
        for worker in self._workers:
            worker.stop()
        await asyncio.gather(*self._tasks, *filter(None, [self._warming]), return_exceptions=True)

    def retry_after(self) -> int:
        """Seconds until a full queue should have drained, 1 to 60."""
        return min(60, max(1, math.ceil(self._seconds_per_job * self._settings.queue_depth)))

    async def run(self, request: Request, kind: Kind, route: Route, payload: bytes, **options: Any) -> Result:
        """The job's result. Raises its error, or a 499 problem, unread, when the client went away."""
        deadline = time.time() + self._settings.job_timeout_seconds
        compatibility = str(options.get("profile", ""))
        job = Job(kind, payload, route, options, compatibility, deadline=deadline)
        await self._broker.submit(job)
        working = asyncio.ensure_future(self._broker.result(job.id))
        self._open.add(working)
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ProblemError(499, "client-gone", "Client gone", "the client closed the connection")
            result = working.result()
        finally:
            self._open.discard(working)
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        self._seconds_per_job += 0.1 * (result.timings["run"] - self._seconds_per_job)
        return result

    async def _warm_up(self) -> None:
        try:
            await asyncio.to_thread(self._backend.warm_up)
        except Exception:
            logger.exception("the models cannot be loaded")
        else:
            self.warm = True


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
