# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How long to wait, and what to try again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from picogram.client.failures import ConnectionFailed, RateLimited, ServerError
from picogram.errors import JobTimeout

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 20.0
"""Seconds between tries, before jitter."""

_PASSING_SLUGS: Final = frozenset(
    ("queue-full", "broker-unavailable", "overloaded", "not-ready", "job-not-finished")
)
_PASSING_STATUSES: Final = frozenset(
    (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)
"""What proxies answer in a server's stead; the server's own answers are problems, and their slugs say more."""


@dataclass(frozen=True)
class Policy:
    """``retries``: further tries of one request in a row; ``timeout``: seconds for a call in all; ``max_answer_bytes``:
    of one answer."""

    retries: int = 5
    timeout: float = 300.0
    max_answer_bytes: int = 256 * 1024 * 1024

    def begin(self, timeout: float | None = None) -> Allowance:
        """The time that a call may take from now on."""
        seconds = self.timeout if timeout is None else timeout
        return Allowance(self, seconds, time.monotonic() + seconds)


@dataclass(frozen=True)
class Allowance:
    """The time of one call, which all its requests and pauses share."""

    policy: Policy
    seconds: float
    until: float

    @property
    def left(self) -> float:
        """Seconds, 0 or more."""
        return max(0.0, self.until - time.monotonic())

    def check(self) -> None:
        """Raises JobTimeout when the time is up."""
        if not self.left:
            raise JobTimeout(f"no result within {self.seconds:g} seconds")

    def pause(self, failure: ServerError, tries: int) -> float | None:
        """Seconds to wait before another try after ``tries`` that failed; None: give up."""
        if tries > self.policy.retries or not passing(failure):
            return None
        pause = backoff(tries, failure.retry_after)
        return pause if pause < self.left else None


def passing(failure: ServerError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(failure, ConnectionFailed):
        return failure.transient
    if isinstance(failure, RateLimited) or failure.status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return failure.slug in _PASSING_SLUGS if failure.problem else failure.status in _PASSING_STATUSES


def backoff(tries: int, retry_after: float | None = None) -> float:
    """Exponential with full jitter, so that callers who failed together do not come back together.

    What the server asks for comes first; the jitter of a first try is added to it.
    """
    if retry_after is not None:
        return retry_after + FIRST_PAUSE * random.random()  # noqa: S311 - not a secret
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1)) * random.random()  # noqa: S311
