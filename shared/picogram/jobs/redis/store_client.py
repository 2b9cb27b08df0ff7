# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What both sides of the broker share: the connection, names, payloads, and how long things stay."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from picogram.jobs.job import Job
from picogram.jobs.queue_settings import QueueSettings
from picogram.jobs.redis import scripts
from picogram.jobs.redis.blobs import SMALL, Blobs, open_blobs
from picogram.jobs.redis.connection import connect, once_more, our_errors
from picogram.jobs.redis.key_names import GROUP, Keys

WITHOUT_DEADLINE: Final = 24 * 3600.0
"""Seconds that a job without a deadline may take before its state expires."""

_REPEATABLE: Final = frozenset(("submit", "result", "cancel", "renew", "forget", "release"))
"""Scripts that may run twice without harm."""


@dataclass(frozen=True)
class Store:
    """The job store as one process sees it. ``name`` is this process's, as consumer and as who waits for replies."""

    client: Redis
    keys: Keys
    blobs: Blobs
    max_depth: int
    lease_seconds: float
    max_attempts: int
    result_ttl: float
    name: str

    @classmethod
    def of(cls, settings: QueueSettings) -> Store:
        """By the settings, of which ``redis_url`` must be there. Nothing is connected yet."""
        if settings.redis_url is None:
            raise ValueError("a job store needs a redis_url")
        client, keys = connect(settings.redis_url.get_secret_value()), Keys(settings.queue_prefix)
        return cls(
            client,
            keys,
            open_blobs(settings.blob_url, client, keys),
            settings.queue_depth,
            settings.lease_seconds,
            settings.max_attempts,
            settings.result_ttl_seconds,
            f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        )

    @property
    def ttl(self) -> int:
        """Milliseconds that results stay."""
        return max(1, int(1000 * self.result_ttl))

    def stay(self, job: Job) -> float:
        """Seconds that everything about an unfinished job stays."""
        left = WITHOUT_DEADLINE if job.deadline is None else max(0.0, job.deadline - time.time())
        return left + self.result_ttl

    async def keep(self, blob: str, payload: bytes, seconds: float) -> list[scripts.Argument]:
        """Put the payload where it belongs, unless it is small enough to go along: what the script is to be told."""
        if self.blobs.within and len(payload) <= SMALL:
            return ["1", payload]
        with our_errors():
            await self.blobs.put(blob, payload, seconds)
        return ["0", ""]

    async def call(
        self, name: str, keys: Sequence[str] = (), arguments: Sequence[scripts.Argument] = ()
    ) -> Any:
        """Run a script. A queue without its consumer group (nobody worked yet, or the store is new) gets one."""

        async def run() -> Any:
            return await scripts.call(self.client, name, keys, [self.keys.prefix, *arguments])

        with our_errors():
            try:
                return await (once_more(self.client, run) if name in _REPEATABLE else run())
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
            await self.make_groups([key for key in keys if ":queue:" in key])
            return await run()

    async def make_groups(self, streams: Sequence[str]) -> None:
        """From the very first entry on (id 0): jobs may have been queued before the first worker came."""
        for stream in streams:
            try:
                await self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
