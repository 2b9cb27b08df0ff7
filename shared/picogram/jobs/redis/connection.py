# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The connection to the job store, and its errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError, OutOfMemoryError, RedisError

from picogram.errors import BrokerUnavailable

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""How long an answer may take; whoever blocks on the server does so for less."""
_OUR_FAULT = ("WRONGTYPE", "ERR syntax", "ERR unknown", "ERR wrong number", "ERR value is not", "CROSSSLOT")
"""How answers begin that say that a command was wrong; all others speak of the store's state or of our rights there."""


class StoreFull(BrokerUnavailable):
    """The store has no memory left: what frees memory helps, and until then it is away."""


class StoreClient(Redis):
    """Limits the time of each command itself.

    With ``socket_timeout`` redis-py would use ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that
    comes as the answer does.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def connect(url: str, connections: int = 64) -> Redis:
    """A client whose calls wait for one of ``connections`` rather than open ever more. Nothing is sent yet."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=None,
        socket_keepalive=True,
        health_check_interval=30,
        # A call may have been carried out before its connection broke: whoever calls decides whether to repeat it.
        retry=Retry(NoBackoff(), 0),
    )
    return StoreClient.from_pool(pool)  # which closes it with the client


@contextmanager
def our_errors() -> Iterator[None]:
    """The store is full: StoreFull. It cannot be reached, refuses us, or cannot do it now: BrokerUnavailable.

    An answer that is an error (read-only, loading, no disk, no rights, scripts gone) is an outage like a lost connection:
    it passes, and nobody's loop ends for it.
    """
    try:
        yield
    except RedisError as error:
        if is_full(error):
            raise StoreFull("the job store is full") from error
        if not is_away(error):
            raise
        raise BrokerUnavailable(f"the job store does not answer ({type(error).__name__})") from error
    except (OSError, TimeoutError) as error:
        raise BrokerUnavailable("the job store does not answer") from error


def is_full(error: RedisError) -> bool:
    """Redis 6.2 words errors within scripts as ``ERR Error running script ... -OOM command not allowed ...``."""
    return isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error)


def is_away(error: RedisError) -> bool:
    """Whether this is about the connection or the server's state, not about what was asked."""
    return not isinstance(error, DataError) and not str(error).startswith(_OUR_FAULT)
