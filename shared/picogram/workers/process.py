# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A worker as a process of its own: settings come in from the environment, an exit code comes out.

    start ── probes listen ── load and warm up (in a thread) ── announce, fetch, work ── SIGTERM ── drain ── exit 0
                                     │                                                     └─ a second one: exit at once
                                     └─ fails: exit 5, or wait for models that are still to be pulled

One process has one model and one step. The job store may be away at the start and later: the worker is then not ready,
and tries again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from picogram.environment import read_settings
from picogram.errors import (
    BrokerUnavailable,
    ModelDamaged,
    ModelError,
    ModelMissing,
    PicogramError,
    UsageError,
)
from picogram.jobs.broker import BatchLimits, Broker
from picogram.jobs.cancellation import end
from picogram.jobs.connect import open_broker
from picogram.jobs.job import Handler
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.state import WorkerInfo
from picogram.jobs.worker import Worker
from picogram.observe import logs, tracing
from picogram.observe.combined import CombinedObserver
from picogram.observe.log_settings import LogSettings
from picogram.observe.logs import LogObserver
from picogram.observe.metrics import WorkerMetrics
from picogram.observe.tracing import TracingObserver
from picogram.version import VERSION
from picogram.workers.health import Health, HealthServer
from picogram.workers.worker_settings import WorkerSettings

logger = structlog.get_logger("picogram.worker")
_BEAT: Final = 1.0
_ANNOUNCE: Final = 5.0
"""Seconds between signs of life, which also tell whether the job store is there; less than the 60 that it keeps them."""
_RETRY: Final = 1.0
_MODELS_AGAIN: Final = 2.0
_UNEXPECTED: Final = 1
_LAST_WORDS: Final = 5.0
"""Seconds at most to take leave of the job store, which may be away."""


def run_worker(
    step: str, load: Callable[[], Handler], *, texts: bool = False, await_models: bool = False
) -> int:
    """Work off the queue ``step`` until SIGTERM or SIGINT; the exit code: 0, or that of the error (5: no models).

    ``load`` loads the models, warms them up and returns the handler. ``texts``: batches are as for a language model.
    ``await_models``: those that ``load`` does not find may still be pulled; not ready meanwhile, and tried again.
    Does not return, but ends the process with the same code, where a batch still runs after ``drain_seconds``.
    """
    with suppress(RuntimeError, OSError, ValueError):  # there may be no standard error
        faulthandler.enable()
    flush: Callable[[], None] | None = None
    process: WorkerProcess | None = None
    logs.configure(
        LogSettings.model_construct(), service=step
    )  # until the wished settings are known to be good
    try:
        log_settings = read_settings(LogSettings)
        logs.configure(log_settings, service=step)
        flush = tracing.install(f"picogram-{step}", log_settings)
        queue, settings = read_settings(QueueSettings), read_settings(WorkerSettings)
        process = WorkerProcess(step, load, queue, settings, texts=texts, await_models=await_models)
        code = asyncio.run(process.run())
    except PicogramError as error:
        code = _refuse(step, error)
    if flush:
        with suppress(Exception):  # a collector that is away is no reason to end otherwise
            flush()
    if process and process.leaves_a_thread:
        logging.shutdown()
        os._exit(code)
    return code


@dataclass
class WorkerProcess:
    """What ``run_worker`` runs. ``leaves_a_thread``: one runs that nothing can end but the end of the process."""

    step: str
    load: Callable[[], Handler]
    queue: QueueSettings
    settings: WorkerSettings
    texts: bool = False
    await_models: bool = False
    leaves_a_thread: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.queue.redis_url is None:
            raise UsageError(
                "a worker needs PICOGRAM_REDIS_URL; without a job store, the server works by itself"
            )
        self._health = Health()
        self._metrics = WorkerMetrics()
        self._metrics.announce(self.step)

    async def run(self) -> int:
        """The exit code. Raises PicogramError where it cannot start."""
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        server = HealthServer(
            self._health, self._metrics.registry, self.settings.health_host, self.settings.health_port
        )
        beating = asyncio.create_task(self._beat())
        try:
            logger.info("loading", health_port=server.port, version=VERSION)
            handler = await self._load()
            return 0 if handler is None else await self._work(handler)
        finally:
            beating.cancel()
            server.close()

    async def _load(self) -> Handler | None:
        """The handler, warm; None where a signal came before. Models that are awaited are looked for again and again."""
        while not self._stop.is_set():
            try:
                return await self._load_once()
            except (ModelMissing, ModelDamaged) as error:
                if not self.await_models:
                    raise
                if self._health.awaited != str(error):
                    logger.warning("waiting for models", problem=str(error))
                self._health.awaited = str(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_MODELS_AGAIN):
                    await self._stop.wait()
        return None

    async def _load_once(self) -> Handler | None:
        """The handler, warm; None where a signal came before."""
        started = time.perf_counter()
        thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        loading = asyncio.get_running_loop().run_in_executor(thread, self.load)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                self.leaves_a_thread = True
                return None
            handler = loading.result()
        except PicogramError:
            raise
        except Exception as error:
            logger.exception("the models cannot be loaded")
            raise ModelError(f"the models cannot be loaded: {type(error).__name__}: {error}") from error
        finally:
            stopping.cancel()
            thread.shutdown(wait=False)
        seconds = time.perf_counter() - started
        self._metrics.loaded(self.step, seconds)
        self._health.warm = True
        logger.info("warm", seconds=round(seconds, 2))
        return handler

    async def _work(self, handler: Handler) -> int:
        broker = open_broker(self.queue)
        count = self.settings.max_text_batch if self.texts else self.settings.max_batch
        observer = CombinedObserver(LogObserver(), self._metrics, TracingObserver())
        limits = BatchLimits(count, self.settings.max_batch_pixels, self.settings.linger_seconds)
        worker = Worker(broker, self.step, handler, limits, observer)
        announcing = asyncio.create_task(self._announce(broker))
        working = asyncio.create_task(worker.run())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping, announcing), return_when=asyncio.FIRST_COMPLETED)
            if announcing.done():
                self._health.broken = "signs of life have ended"
                announcing.result()
            await self._drain(worker, working)
            return 0
        except Exception:
            logger.exception("the worker broke down")
            return _UNEXPECTED
        finally:
            self._health.draining = True
            await end(announcing, stopping)
            await _within_reason(broker.close())

    async def _drain(self, worker: Worker, working: asyncio.Task[None]) -> None:
        """Let the running batch end, or hand it back when its time is over. Raises what ended the worker."""
        self._health.draining = True
        worker.stop()
        logger.info("draining", busy=worker.busy, seconds=self.settings.drain_seconds)
        done, _ = await asyncio.wait((working,), timeout=self.settings.drain_seconds)
        if done:
            working.result()
            logger.info("drained")
            return
        self.leaves_a_thread = True
        logger.warning("the batch did not end in time and is handed back")
        await _within_reason(worker.abandon())
        await end(working)

    async def _beat(self) -> None:
        while True:
            self._health.beat()
            await asyncio.sleep(_BEAT)

    async def _announce(self, broker: Broker) -> None:
        facts: dict[str, Any] = {"host": socket.gethostname(), "process": os.getpid()}
        info = WorkerInfo(f"{facts['host']}-{facts['process']}", self.step, VERSION, time.time(), facts)
        reachable: bool | None = None
        while True:
            try:
                await broker.announce(info)
                problem = ""
            except BrokerUnavailable as error:
                problem = str(error)
            except Exception as error:
                logger.exception("a sign of life failed")
                problem = f"a sign of life failed ({type(error).__name__})"
            if reachable != (not problem):
                reachable = self._health.reachable = not problem
                logger.info("ready") if reachable else logger.warning("not ready", problem=problem)
            await asyncio.sleep((_ANNOUNCE if reachable else _RETRY) * random.uniform(0.75, 1.0))  # noqa: S311 - no secret

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            logger.warning("a second signal: ending at once", signal=number.name)
            os._exit(128 + number)
        self._stop.set()


async def _within_reason(farewell: Any) -> None:
    """What is only polite: leases and signs of life run out by themselves."""
    try:
        async with asyncio.timeout(_LAST_WORDS):
            await farewell
    except (BrokerUnavailable, TimeoutError) as error:
        logger.warning("the job store is away at the end", problem=str(error))


def _refuse(step: str, error: PicogramError) -> int:
    logger.error("cannot work", step=step, problem=str(error), slug=error.slug)
    return error.exit_code
