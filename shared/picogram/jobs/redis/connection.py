# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The connection to the job store, and its errors in our words.

    no connection, no answer in time, any error answer ── BrokerUnavailable: whoever calls backs off and tries again
    OOM                                                ── StoreFull, one of them
    NOSCRIPT, NOGROUP, BUSYGROUP                       ── dealt with where scripts are called

A store that refuses (disk full, failover, restart, another's slow script) is away for now as one without a connection is.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, ConnectionError, RedisError, ResponseError

from picogram.errors import BrokerUnavailable

T = TypeVar("T")
logger = logging.getLogger("picogram.jobs")

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""How long an answer may take; whoever blocks on the server does so for less."""
_CODE: Final = re.compile(r"(?:^|[\s:]-)([A-Z]{2,})\b")
"""Of an error answer: `MISCONF ...`; before Redis 7 behind `ERR Error running script ...: -`, too."""
_STATES: Final = frozenset(
    (
        "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "NOSCRIPT",
        "OOM", "READONLY", "TRYAGAIN", "UNKILLABLE", "WRONGPASS",
    )
)  # fmt: skip
"""Codes that are about the server's state. Others may be a fault of ours, so they are logged."""
_QUIET: Final = 60.0
"""Seconds between log lines about one code, for whoever is refused tries again and again."""
_quiet_until: dict[str, float] = {}
_ELSEWHERE: Final = frozenset(("READONLY", "MASTERDOWN"))
"""What a server says that is no primary any more; the store's name may lead to another one by now."""
_REPEATABLE: Final = frozenset(
    (
        "HDEL", "HMGET", "HSET", "MGET", "SET", "UNLINK", "XDEL", "XLEN", "XPENDING", "XRANGE", "ZADD",
        "ZRANGEBYSCORE", "ZREM",
    )
)  # fmt: skip
"""Commands that may run twice without harm."""


class StoreFull(BrokerUnavailable):
    """The store has no memory left for what was asked; what frees some still works."""


class StoreClient(Redis):
    """Limits the time of each command itself, and repeats some whose connection turns out to be dead.

    With ``socket_timeout`` redis-py would use ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that
    comes as the answer does.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async def send() -> Any:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await super(StoreClient, self).execute_command(*args, **options)  # type: ignore[no-untyped-call]

        try:
            return await (once_more(self, send) if args[0] in _REPEATABLE else send())
        except ResponseError as error:
            if code_of(error) in _ELSEWHERE:
                await _drop_connections(self)
            raise


async def once_more(client: Redis, act: Callable[[], Awaitable[T]]) -> T:
    """``act``, and again where its connection was dead: a store that restarted leaves such ones in the pool."""
    try:
        return await act()
    except (AuthenticationError, BusyLoadingError, TimeoutError):
        raise  # the server was reached, or would take as long again
    except (ConnectionError, OSError):
        await _drop_connections(client)
        return await act()


async def _drop_connections(client: Redis) -> None:
    """Those that are idle; whoever asks next connects anew."""
    with suppress(RedisError, OSError):
        await client.connection_pool.disconnect(inuse_connections=False)


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
    """The store is full: StoreFull. It cannot be reached, refuses us, or is not ready: BrokerUnavailable."""
    try:
        yield
    except ResponseError as error:
        raise _refusal(error) from error
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"the job store does not answer ({type(error).__name__})") from error


def code_of(error: RedisError) -> str:
    """The word that an error answer begins with, or that of the command within a script which failed."""
    if error.status_code and error.status_code != "ERR":
        return error.status_code
    found: list[str] = _CODE.findall(str(error))
    return found[-1] if found else "ERR"


def _refusal(error: ResponseError) -> BrokerUnavailable:
    code = code_of(error)
    if code == "OOM":
        return StoreFull("the job store is full")
    if code not in _STATES and time.monotonic() >= _quiet_until.get(code, 0.0):
        _quiet_until[code] = time.monotonic() + _QUIET
        logger.error("the job store refuses a command: %s", error)
    return BrokerUnavailable(f"the job store refuses commands for now ({code})")
