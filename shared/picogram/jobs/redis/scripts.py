# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts that run inside the job store, so that nobody can die between two halves of a change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float


@cache
def source(name: str) -> str:
    """The whole text of ``lua/<name>.lua``, with what all scripts share in front."""
    folder = files("picogram.jobs.redis") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", name))


@cache
def digest(name: str) -> str:
    """What the server knows the script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


async def call(client: Redis, name: str, keys: Sequence[str] = (), arguments: Sequence[Argument] = ()) -> Any:
    """Run the script by its digest; a server that does not know it (new, or restarted) gets its text."""
    operands: list[Any] = [*keys, *arguments]
    try:
        return await client.evalsha(digest(name), len(keys), *operands)
    except NoScriptError:
        return await client.eval(source(name), len(keys), *operands)
