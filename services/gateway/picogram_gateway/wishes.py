# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a caller may say about any job, in headers: when to answer, what repeats what, and how urgent it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from picogram.jobs import Priority
from picogram_gateway.prefer import Preference, parse_prefer


@dataclass(frozen=True)
class Wishes:
    """Read from ``Prefer``, ``Idempotency-Key`` and ``X-Picogram-Priority``."""

    prefer: Preference
    key: str
    priority: Priority


async def _wishes(
    prefer: Annotated[
        list[str] | None,
        Header(
            description="RFC 7240. `respond-async`: answer 202 at once, with the job. `wait=N`: 202 after N seconds.",
            examples=["respond-async, wait=10"],
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="A repetition with the same key gets the same job; another request with it is refused.",
            examples=["5f0c6f5e-6f5b-4c3e-9d55-0d6b6c1f7a52"],
        ),
    ] = None,
    x_picogram_priority: Annotated[
        Priority, Header(description="Jobs of priority `high` run before all others.")
    ] = "normal",
) -> Wishes:
    return Wishes(parse_prefer(prefer or ()), idempotency_key or "", x_picogram_priority)


Asked = Annotated[Wishes, Depends(_wishes)]
"""The parameter of a route that starts a job."""
