# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Several observers as one: every call goes to each, in the order given, whatever the others do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome
from picogram.jobs.observer import Ending, HarmlessObserver, Observer


class CombinedObserver(Observer):
    """Fans out. ``started`` enters the observers in order and leaves them in the reverse order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = [HarmlessObserver(observer) for observer in observers]

    def fetched(self, step: str, jobs: Sequence[Job]) -> None:
        for observer in self._observers:
            observer.fetched(step, jobs)

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.started(step, jobs))
            yield

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        for observer in self._observers:
            observer.batch(step, task, size, seconds)

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        for observer in self._observers:
            observer.finished(step, job, outcome, ending)

    def failed(self, step: str, job: Job, error: Exception) -> None:
        for observer in self._observers:
            observer.failed(step, job, error)

    def swept(self, step: str, swept: Swept) -> None:
        for observer in self._observers:
            observer.swept(step, swept)
