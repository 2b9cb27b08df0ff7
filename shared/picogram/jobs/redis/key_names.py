# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Names of everything the job store holds. Scripts and manifests rely on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from picogram.jobs.job import PRIORITIES, Priority

GROUP: Final = "workers"
"""The one consumer group of every queue."""


@dataclass(frozen=True)
class Keys:
    """Names under a prefix."""

    prefix: str = "picogram"

    def queue(self, step: str, priority: Priority) -> str:
        """The stream of one step's jobs of one priority; its length is what waits and runs."""
        return f"{self.prefix}:queue:{step}:{priority}"

    def queues(self, step: str) -> list[str]:
        """All streams of a step, in the order of service."""
        return [self.queue(step, priority) for priority in PRIORITIES]

    def dead(self, step: str) -> str:
        """The stream of jobs that were given up."""
        return f"{self.prefix}:dead:{step}"

    def sweep(self, step: str) -> str:
        """The lock of whoever sweeps."""
        return f"{self.prefix}:sweep:{step}"

    def job(self, job_id: str) -> str:
        """The hash with a job's state."""
        return f"{self.prefix}:job:{job_id}"

    def events(self, job_id: str) -> str:
        """The stream of a job's events."""
        return f"{self.prefix}:events:{job_id}"

    def blob(self, name: str) -> str:
        """A payload."""
        return f"{self.prefix}:blob:{name}"

    def idempotency(self, owner: str, key: str) -> str:
        """Id and fingerprint of the job that came with this key. Owners hold no colon."""
        return f"{self.prefix}:key:{owner}:{key}"

    def reply(self, name: str) -> str:
        """The channel on which one waiting process hears of ended jobs."""
        return f"{self.prefix}:reply:{name}"

    @property
    def workers(self) -> str:
        """Sorted set of workers by their last sign of life."""
        return f"{self.prefix}:workers"

    @property
    def worker_facts(self) -> str:
        """Hash of what workers say of themselves."""
        return f"{self.prefix}:worker-facts"
