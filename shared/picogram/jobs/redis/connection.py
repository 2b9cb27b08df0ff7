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
from redis.exceptions import OutOfMemoryError, RedisError

from picogram.errors import BrokerUnavailable, QueueFull

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""How long an answer may take; whoever blocks on the server does so for less."""
_AWAY = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY ")


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
    """The store is full: QueueFull. It cannot be reached, refuses us, or is not ready: BrokerUnavailable."""
    try:
        yield
    except OutOfMemoryError as error:
        raise QueueFull("the job store is full") from error
    except RedisError as error:
        if not is_away(error):
            raise
        raise BrokerUnavailable(f"the job store does not answer ({type(error).__name__})") from error
    except (OSError, TimeoutError) as error:
        raise BrokerUnavailable("the job store does not answer") from error


def is_away(error: RedisError) -> bool:
    """Whether this is about the connection or the server's state, not about what was asked."""
    from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, TimeoutError

    known = (BusyLoadingError, ConnectionError, ReadOnlyError, TimeoutError)
    return isinstance(error, known) or str(error).startswith(_AWAY)
