# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A job's events as ``text/event-stream``: from where the reader left off to the last one, with signs of life between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from picogram.errors import PicogramError
from picogram.jobs import Event


async def event_stream(
    events: AsyncIterator[Event], closing: asyncio.Event, heartbeat: float
) -> AsyncIterator[bytes]:
    """Ends with the last event, with ``closing``, or when the job store goes away: readers ask again, elsewhere."""
    closed = asyncio.create_task(closing.wait())
    upcoming = asyncio.create_task(_next(events))
    try:
        while True:
            await asyncio.wait((upcoming, closed), timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if upcoming.done():
                event = upcoming.result()
                if event is None:
                    return
                yield _format(event)
                upcoming = asyncio.create_task(_next(events))
            elif closed.done():
                return
            else:
                yield KEEPALIVE_COMMENT
    finally:
        closed.cancel()
        upcoming.cancel()
        await asyncio.gather(closed, upcoming, return_exceptions=True)


async def _next(events: AsyncIterator[Event]) -> Event | None:
    try:
        return await anext(events, None)
    except PicogramError:
        return None


def _format(event: Event) -> bytes:
    data = json.dumps({"at": round(event.at, 3), **event.data})
    return format_sse_event(data_str=data, event=event.name, id=event.id)
