# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs: what a service does for a caller, how it waits for its turn, and who runs it.

    gateway ── submit ──> Broker ── fetch (a batch) ──> Worker ── handler(list[Job]) in a thread
       ^                    │  ^                           │
       └────── result ──────┘  └───── finish (per job) ────┘
                            └─ the route goes on: the next step's queue

``MemoryBroker`` keeps everything in one process. The protocol is small enough for Redis Streams to follow,
and ``Worker`` is the only batching loop there is.
"""

from picogram.jobs.broker import BatchLimits, Broker
from picogram.jobs.job import Handler, Job, Kind, Outcome, Result
from picogram.jobs.memory import MemoryBroker
from picogram.jobs.worker import Worker

__all__ = ["BatchLimits", "Broker", "Handler", "Job", "Kind", "MemoryBroker", "Outcome", "Result", "Worker"]
