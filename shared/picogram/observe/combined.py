# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Several observers as one: every call goes to each, in the order given, whatever the others do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome
from picogram.jobs.observer import Ending, HarmlessObserver, Observer

_logger: Final = logging.getLogger("picogram.observe")


class CombinedObserver(Observer):
    """Fans out. ``started`` enters the observers in order and leaves them in the reverse order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = [HarmlessObserver(observer) for observer in observers]

    def fetched(self, step: str, jobs: Sequence[Job]) -> None:
        self._each(lambda observer: observer.fetched(step, jobs))

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        entered = []
        for observer in self._observers:
            context = observer.started(step, jobs)
            with _costing_nothing():
                context.__enter__()
                entered.append(context)
        try:
            yield
        finally:
            for context in reversed(entered):
                with _costing_nothing():
                    context.__exit__(None, None, None)

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        self._each(lambda observer: observer.batch(step, task, size, seconds))

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        self._each(lambda observer: observer.finished(step, job, outcome, ending))

    def failed(self, step: str, job: Job, error: Exception) -> None:
        self._each(lambda observer: observer.failed(step, job, error))

    def swept(self, step: str, swept: Swept) -> None:
        self._each(lambda observer: observer.swept(step, swept))

    def _each(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            with _costing_nothing():
                call(observer)


@contextmanager
def _costing_nothing() -> Iterator[None]:
    """Logs, metrics and traces may break (a reader is gone, a disk is full); the work goes on."""
    try:
        yield
    except Exception:
        with suppress(Exception):
            _logger.exception("an observer failed")
