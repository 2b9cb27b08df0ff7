# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a queue must do, whoever keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from picogram.jobs.job import Job, Outcome, Priority, Result
from picogram.jobs.state import Event, EventName, JobState, WorkerInfo


@dataclass(frozen=True)
class BatchLimits:
    """How much a worker takes at once; a single job may exceed ``max_cost``, for it must run some time.

    ``linger_seconds``: how long to wait for more once there is one; 0 is right unless measured otherwise.
    """

    max_jobs: int = 8
    max_cost: int = 16_000_000
    linger_seconds: float = 0.0


@dataclass(frozen=True)
class Swept:
    """What a sweep found: jobs whose worker died and that wait again, jobs given up, and names of dead workers."""

    reclaimed: int = 0
    dead: int = 0
    workers: int = 0


class Broker(Protocol):
    """Submit and wait on one side, fetch and finish on the other; bounded, first come, first served by priority.

    Every method may raise BrokerUnavailable. A fetched job is leased: whoever fetched it calls ``renew`` often enough
    (a third of ``lease_seconds``), or another worker gets it.
    """

    lease_seconds: float

    async def close(self) -> None:
        """Let go of connections and of this worker's name. What is queued stays, where it can."""

    # --- for callers ------------------------------------------------------------------------------------------------

    async def submit(self, job: Job) -> str:
        """Queue the job; its id, or that of the earlier job of the same owner, key and fingerprint.

        Raises QueueFull, and JobConflict where the key came with another fingerprint.
        """

    async def result(self, job_id: str, wait: float | None = None) -> Result:
        """The outcome, which stays for a while and may be asked for again.

        Waits ``wait`` seconds at most (None: until the deadline), then raises the built-in TimeoutError. Raises the
        handler's error, JobFailed for one that is not ours, JobTimeout, JobCanceled, JobAbandoned, or JobUnknown.
        """

    async def state(self, job_id: str) -> JobState:
        """Where the job is. Raises JobUnknown."""

    def events(self, job_id: str, after: str = "") -> AsyncIterator[Event]:
        """What happened since the event ``after`` (empty: since the beginning), and what happens, to the final one.

        Raises JobUnknown when there is no such job.
        """

    async def cancel(self, job_id: str) -> bool:
        """Give the job up; true if it was not finished yet. A running handler learns of it and ends unheard."""

    async def forget(self, job_id: str) -> None:
        """Drop a finished job's result and events before their time; nothing happens to one that is not finished."""

    async def depth(self, step: str, priority: Priority | None = None) -> int:
        """Jobs that wait in that step's queue or run."""

    async def workers(self) -> list[WorkerInfo]:
        """Workers that gave a sign of life within the last minute."""

    # --- for workers ------------------------------------------------------------------------------------------------

    async def fetch(self, step: str, limits: BatchLimits, wait: float | None = None) -> list[Job]:
        """The next batch: jobs of one ``batch_key``, oldest first; waits ``wait`` seconds (None: for ever) for one.

        Canceled jobs are skipped, expired ones end with JobTimeout. An empty list means that none came.
        """

    async def renew(self, jobs: Sequence[Job]) -> set[str]:
        """Keep the leases; the ids of jobs that are not to go on: canceled, expired, or another's by now."""

    async def publish(self, job: Job, name: EventName, data: Mapping[str, Any]) -> None:
        """Tell whoever watches the job; ``progress`` also moves its state. Bytes are sent as base64."""

    async def finish(self, job: Job, outcome: Outcome) -> bool:
        """Report a fetched job: an exception or the last step ends it, else it moves on to its next step, atomically.

        False where that came too late: canceled, expired, or another worker's by now. See ``Job.after``. A queue
        takes a job that moves on even when it is full, for that job was accepted.
        """

    async def release(self, jobs: Sequence[Job]) -> None:
        """Hand fetched jobs back unfinished: they are next, and the attempt does not count."""

    async def sweep(self, step: str) -> Swept:
        """Make jobs of dead workers available again, or end them with JobAbandoned after too many attempts."""

    async def announce(self, worker: WorkerInfo) -> None:
        """Give a sign of life; every 20 seconds will do."""
