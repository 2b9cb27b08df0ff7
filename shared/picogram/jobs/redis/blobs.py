# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where payloads lie: in the job store itself, or in a folder that all processes share. Every blob has a time to live."""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis

from picogram.errors import BrokerUnavailable
from picogram.jobs.redis.key_names import Keys

T = TypeVar("T")
_NAME = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}")


def new_name(job_id: str) -> str:
    """A name that nothing else has, so that a late writer overwrites nothing."""
    return f"{job_id}.{uuid.uuid4().hex[:8]}"


SMALL: Final = 262_144
"""Payloads up to this size go along with the scripts, if they lie in the job store; see lua/common.lua."""


class Blobs(Protocol):
    """Bytes by name. ``within`` the job store, or elsewhere."""

    within: bool

    async def put(self, name: str, data: bytes, seconds: float) -> None:
        """Keep the bytes for that long, at least."""

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """The bytes of each name, None where there are none (any more)."""

    async def delete(self, *names: str) -> None:
        """Drop them; unknown names are nothing to complain about."""

    async def sweep(self) -> None:
        """Drop what has outlived its time."""


class RedisBlobs:
    """In the job store; expiry is the server's affair."""

    within = True

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    async def put(self, name: str, data: bytes, seconds: float) -> None:
        await self._client.set(self._keys.blob(name), data, px=max(1, int(1000 * seconds)))

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        if not names:
            return []
        blobs: list[Any] = await self._client.mget([self._keys.blob(name) for name in names])
        return blobs

    async def delete(self, *names: str) -> None:
        if names:
            await self._client.unlink(*(self._keys.blob(name) for name in names))

    async def sweep(self) -> None:
        """Nothing to do."""


class FolderBlobs:
    """One file per blob, written aside and renamed; its modification time is when it may go."""

    within = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: bytes, seconds: float) -> None:
        await self._off_loop(self._put, name, data, time.time() + seconds)

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        return [await self._off_loop(self._get, name) for name in names]

    async def delete(self, *names: str) -> None:
        for name in names:
            await self._off_loop(self._path(name).unlink, True)

    async def sweep(self) -> None:
        await self._off_loop(self._sweep)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no blob's name")
        return self._folder / name

    def _put(self, name: str, data: bytes, until: float) -> None:
        path = self._path(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        aside.write_bytes(data)
        os.utime(aside, (until, until))
        aside.replace(path)

    def _get(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        now = time.time()
        for path in self._folder.glob("*"):
            try:
                if path.stat().st_mtime < now:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:  # somebody else sweeps, too
                continue

    async def _off_loop(self, act: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.to_thread(act, *arguments)
        except OSError as error:
            raise BrokerUnavailable(f"the blob folder cannot be used: {error.strerror}") from error


def open_blobs(url: str, client: Redis, keys: Keys) -> Blobs:
    """The store that the setting ``blob_url`` names."""
    if url == "redis":
        return RedisBlobs(client, keys)
    return FolderBlobs(Path(unquote(urlsplit(url).path)))
