# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How a process hears that jobs have ended.

One channel for all it waits for, and a look now and then, for messages get lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from redis.asyncio import Redis

from picogram.errors import BrokerUnavailable
from picogram.jobs.cancellation import end
from picogram.jobs.redis.connection import logger, our_errors

FOREIGN_POLL: Final = 0.2
"""Seconds between looks at a job that another process submitted, whose end is told to that one."""
OWN_POLL: Final = 2.0
_RETRY: Final = 0.5


class Endings:
    """Waits for messages on ``channel``, each the id of a job that has ended."""

    def __init__(self, client: Redis, channel: str) -> None:
        self._client, self._channel = client, channel
        self._own: set[str] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._waiting: Counter[str] = Counter()
        self._listening: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    async def expect(self, job_id: str) -> None:
        """This process is about to submit the job, so its end will be told here."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen())
        if not self._subscribed.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._subscribed.wait()
            except TimeoutError:
                return  # then polling has to do
        self._own.add(job_id)
        self._ended.setdefault(job_id, asyncio.Event())

    async def wait(self, job_id: str, seconds: float) -> None:
        """Returns when it is worth looking at the job again, after ``seconds`` at the latest."""
        own = job_id in self._own and self._subscribed.is_set()
        event = self._ended.setdefault(job_id, asyncio.Event())
        self._waiting[job_id] += 1
        try:
            async with asyncio.timeout(min(seconds, OWN_POLL if own else FOREIGN_POLL)):
                await event.wait()
            event.clear()  # one message, one look
        except TimeoutError:
            return
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                if job_id not in self._own:
                    self._ended.pop(job_id, None)

    def settled(self, job_id: str) -> None:
        """Nobody here will wait for the job again."""
        self._own.discard(job_id)
        if not self._waiting[job_id]:
            self._ended.pop(job_id, None)

    async def close(self) -> None:
        """Stop listening."""
        if self._listening:
            await end(self._listening)

    async def _listen(self) -> None:
        """Ends only by being canceled, for whoever waits would hear of nothing any more."""
        while True:
            try:
                with our_errors():
                    await self._listen_once()
            except BrokerUnavailable:
                pass
            except Exception:
                logger.exception("listening for ends of jobs failed; it begins anew")
            finally:
                self._subscribed.clear()
            await asyncio.sleep(_RETRY)

    async def _listen_once(self) -> None:
        async with self._client.pubsub() as channel:
            await channel.subscribe(self._channel)
            self._look()  # whatever was told while nobody listened
            while True:
                message = await channel.get_message(timeout=5.0)
                if message is None:
                    await channel.ping()
                elif message["type"] == "subscribe":
                    self._subscribed.set()
                elif event := self._ended.get(message["data"].decode()):
                    event.set()

    def _look(self) -> None:
        for event in self._ended.values():
            event.set()
