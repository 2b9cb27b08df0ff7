# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The broker of a fleet: Redis Streams (Redis 6.2 or later, or Valkey). See ``Broker`` for what it promises.

    PREFIX:queue:STEP:PRIORITY   stream; an entry per job that waits or runs (removed at its end: the length is the depth)
    PREFIX:job:ID                hash with the job's state, for as long as somebody may ask
    PREFIX:events:ID             stream of what happened to it
    PREFIX:blob:NAME             payloads, never in a stream (or files in a folder)
    PREFIX:dead:STEP             stream of jobs given up

Every change is one script (lua/), so a process may die anywhere. An entry belongs to the worker that fetched it while it
renews its lease; the sweep gives those of silent workers to the consumer ``released``, from which fetch takes first.
"""

from __future__ import annotations

from contextlib import suppress

from picogram.errors import BrokerUnavailable
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis.caller_side import Callers
from picogram.jobs.redis.connection import our_errors
from picogram.jobs.redis.store_client import Store
from picogram.jobs.redis.worker_side import Workers


class RedisBroker(Callers, Workers):
    """See ``Broker``. Belongs to one event loop; processes share nothing but the server."""

    def __init__(self, store: Store) -> None:
        Callers.__init__(self, store)
        Workers.__init__(self, store)
        self.store = store
        self.lease_seconds = store.lease_seconds

    @classmethod
    def of(cls, settings: QueueSettings) -> RedisBroker:
        """By the settings, of which ``redis_url`` must be there. Nothing is connected yet."""
        return cls(Store.of(settings))

    async def close(self) -> None:
        """Leave the queues, if the server is there to be told."""
        await self._endings.close()
        with suppress(BrokerUnavailable):
            await self.leave()
        with suppress(BrokerUnavailable), our_errors():
            await self._store.client.aclose()
