# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker lets others see of its work: metrics, traces and logs hang on here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome

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
