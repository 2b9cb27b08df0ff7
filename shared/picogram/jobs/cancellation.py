# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Ending tasks that may not hear it the first time.

Before Python 3.12, ``asyncio.wait_for`` drops a cancellation that comes as its own work is done (cpython issue 86296),
and redis-py calls it for every command that has a time limit.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

_AGAIN: Final = 0.05
"""Seconds until a task that goes on is canceled once more."""


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks until they have ended. How they ended is nobody's concern any more."""
    waiting = set(tasks)
    while waiting := {task for task in waiting if not task.done()}:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
