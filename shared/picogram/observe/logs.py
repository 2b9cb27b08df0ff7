# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Log lines on standard error: structlog events and those of the standard library, in one format.

Within a batch, whatever is logged in the worker's thread carries ``job`` and ``trace`` (or ``jobs`` and ``traces``).
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome
from picogram.jobs.observer import Ending, Observer
from picogram.observe.log_settings import LogSettings
from picogram.observe.log_stream import LogStream

logger = structlog.get_logger("picogram.worker")
_TRACE_ID = slice(3, 35)
"""Where a traceparent (00-TRACE-SPAN-FLAGS) has its trace id."""


def configure(settings: LogSettings, service: str = "") -> None:
    """Text on a terminal, JSON elsewhere. Other packages' loggers speak from warnings up, ours from ``log_level``.

    ``service``: named in every line, so that the lines of a fleet can share a file. What nobody catches is a line, too.
    Nothing that happens to standard error is raised to whoever logs.
    """
    stream = LogStream()
    level = getattr(logging, settings.log_level.upper())
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([_naming(service)] if service else []),
        # A terminal's renderer lays out tracebacks itself.
        *([] if as_text else [structlog.processors.format_exc_info]),
    ]
    renderer: Processor = _for_people(stream) if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("picogram").setLevel(level)
    logging.captureWarnings(True)
    if service:
        _log_what_nobody_catches()


def _log_what_nobody_catches() -> None:
    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            logger.critical("uncaught error", exc_info=(kind, error, trace))

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def trace_id(traceparent: str) -> str:
    """The trace that a traceparent belongs to, in hexadecimal; empty for an empty one."""
    return traceparent[_TRACE_ID]


class LogObserver(Observer):
    """What a person looks for after trouble; a worker that runs smoothly is silent unless at level ``debug``."""

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        with structlog.contextvars.bound_contextvars(**_names(jobs)):
            yield

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        logger.debug("batch", step=step, task=task, size=size, seconds=round(seconds, 4))

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        tell = logger.warning if ending == "late" else logger.debug
        tell("finished", step=step, task=job.task, ending=ending, attempt=job.attempt, **_names([job]))

    def failed(self, step: str, job: Job, error: Exception) -> None:
        logger.error("unexpected error", step=step, task=job.task, exc_info=error, **_names([job]))

    def swept(self, step: str, swept: Swept) -> None:
        if swept.reclaimed:
            logger.warning("jobs of dead workers wait again", step=step, jobs=swept.reclaimed)
        if swept.dead:
            logger.error("jobs given up after too many attempts", step=step, jobs=swept.dead)


def _for_people(stream: LogStream) -> Processor:
    """Tracebacks are plain: others show the values of variables, which are callers' pictures."""
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _naming(service: str) -> Processor:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return add_service


def _names(jobs: Sequence[Job]) -> dict[str, str | list[str]]:
    """Ids of jobs and of the traces they belong to, where they do."""
    names: dict[str, str | list[str]] = {"jobs": [job.id for job in jobs]}
    traces: str | list[str] = [trace_id(job.trace) for job in jobs if job.trace]
    if len(jobs) == 1:
        names, traces = {"job": jobs[0].id}, "".join(traces)
    if traces:
        names["trace" if len(jobs) == 1 else "traces"] = traces
    return names
