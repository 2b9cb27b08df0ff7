# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a queue must do, whoever keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from picogram.jobs.job import Job, Outcome, Result


@dataclass(frozen=True)
class BatchLimits:
    """How much a worker takes at once; a single job may exceed ``cost``, for it must run some time."""

    count: int = 8
    cost: int = 16_000_000


class Broker(Protocol):
    """Submit and wait on one side, fetch and finish on the other; bounded, first come, first served."""

    async def submit(self, job: Job) -> None:
        """Queue the job. Raises ``QueueFull``."""

    async def result(self, job_id: str) -> Result:
        """Wait for the outcome, once per job. Raises the handler's error, JobTimeout or JobCanceled."""

    async def cancel(self, job_id: str) -> bool:
        """Give the job up; true if it was not finished yet. A running handler ends unheard."""

    async def fetch(self, step: str, limits: BatchLimits, wait: float | None = None) -> list[Job]:
        """The next batch: jobs of one ``batch_key``, oldest first; waits ``wait`` seconds (None: for ever) for one.

        Expired jobs are dropped with ``JobTimeout``. An empty list means that none came.
        """

    async def finish(self, job: Job, outcome: Outcome) -> None:
        """Report a fetched job: an exception or the last step ends it, else it moves on to its next step.

        See ``Job.after``. A queue takes a job that moves on even when it is full, for that job was accepted.
        """

    async def depth(self, step: str) -> int:
        """Jobs that wait in that step's queue or run."""
