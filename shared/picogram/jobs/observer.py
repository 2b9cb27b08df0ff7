# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker lets others see of its work: metrics, traces and logs hang on here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any, Literal

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome

logger = logging.getLogger("picogram.jobs")
Ending = Literal["done", "moved", "failed", "error", "late"]
"""The route is finished; it goes on; a typed error; an unexpected one; the job was nobody's or another's by then."""


class Observer:
    """Sees and does nothing; a subclass overrides what it wants. All calls come from the event loop but ``started``'s."""

    def fetched(self, step: str, jobs: Sequence[Job]) -> None:
        """A batch was taken. It waited since ``job.queued_at``."""

    def started(self, step: str, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        """Entered and left around the handler's call, in the handler's thread."""
        return nullcontext()

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        """The handler came back."""

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        """A job of the batch was reported."""

    def failed(self, step: str, job: Job, error: Exception) -> None:
        """An error that is not ours: the caller does not see its text, so somebody has to write it down."""

    def swept(self, step: str, swept: Swept) -> None:
        """Jobs of dead workers were found."""


class HarmlessObserver(Observer):
    """Passes on to ``observer``, whose errors stay here: no job is lost for want of a log line. The first is logged."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._complained = False

    def fetched(self, step: str, jobs: Sequence[Job]) -> None:
        self._safely(self._observer.fetched, step, jobs)

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        stack = ExitStack()
        self._safely(lambda: stack.enter_context(self._observer.started(step, jobs)))
        try:
            yield
        finally:
            self._safely(stack.close)

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        self._safely(self._observer.batch, step, task, size, seconds)

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        self._safely(self._observer.finished, step, job, outcome, ending)

    def failed(self, step: str, job: Job, error: Exception) -> None:
        self._safely(self._observer.failed, step, job, error)

    def swept(self, step: str, swept: Swept) -> None:
        self._safely(self._observer.swept, step, swept)

    def _safely(self, tell: Callable[..., Any], *about: Any) -> None:
        try:
            tell(*about)
        except Exception:
            if not self._complained:
                self._complained = True
                with suppress(Exception):
                    logger.exception("an observer fails; the work goes on without it")
