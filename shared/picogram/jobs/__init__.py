# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs: what a service does for a caller, how it waits for its turn, and who runs it.

    gateway ── submit ──> Broker ── fetch (a batch) ──> Worker ── handler(list[Job]) in a thread
       ^                    │  ^                           │
       └── result, events ──┘  └───── finish (per job) ────┘
                            └─ the route goes on: the next step's queue

``MemoryBroker`` keeps everything in one process, ``picogram.jobs.redis.RedisBroker`` on a server that many share;
which one is a setting (``open_broker``). ``Worker`` is the only batching loop there is.
"""

from picogram.jobs.broker import BatchLimits, Broker, Swept
from picogram.jobs.connect import open_broker
from picogram.jobs.control import JobControl
from picogram.jobs.job import PRIORITIES, Handler, Job, Outcome, Priority, Result
from picogram.jobs.memory import MemoryBroker
from picogram.jobs.observer import Observer
from picogram.jobs.state import Event, JobState, WorkerInfo
from picogram.jobs.worker import Worker

__all__ = [
    "PRIORITIES",
    "BatchLimits",
    "Broker",
    "Event",
    "Handler",
    "Job",
    "JobControl",
    "JobState",
    "MemoryBroker",
    "Observer",
    "Outcome",
    "Priority",
    "Result",
    "Swept",
    "Worker",
    "WorkerInfo",
    "open_broker",
]
