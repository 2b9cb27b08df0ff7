# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A job store that refuses: commands go on to a real one, or are answered with an error while one is set.

client ── RefusingStore ──┬── refusal is empty: the real store
                          └── else: -<refusal>, once the connection stands
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from valkey_server import ValkeyServer

_GREETINGS: Final = (b"HELLO", b"AUTH", b"CLIENT", b"SELECT")
_MODERN: Final = {
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "NOAUTH": "NOAUTH Authentication required.",
    "BUSY": "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOSCRIPT": "NOSCRIPT No matching script. Please use EVAL.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "NOPERM": "NOPERM this user has no permissions to run the 'evalsha' command",
    "ERR": "ERR max number of clients reached",
    "WRONGTYPE": "WRONGTYPE Operation against a key holding the wrong kind of value",
}
_OLD: Final = "ERR Error running script (call to f_0a1b): @user_script:30: @user_script: 30: -{} "
REFUSALS: Final = {
    **_MODERN,
    **{f"old {code}": _OLD.format(_MODERN[code]) for code in ("OOM", "READONLY", "MISCONF", "BUSY")},
}
"""Error answers as servers word them; before Redis 7 those of commands within scripts were wrapped."""


class RefusingStore:
    """``url`` is the store's, ``refusal`` what it answers now, ``connections`` how many were opened so far."""

    def __init__(self, behind: ValkeyServer) -> None:
        self.refusal = ""
        self.connections = 0
        self.heard: list[bytes] = []
        self._behind = behind
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"redis://:{self._behind.password}@127.0.0.1:{self._port}/0"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RefusingStore]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """End all connections, as a proxy does that forgets them: the next write learns of it."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answers, commands = await asyncio.open_connection("127.0.0.1", self._behind.port)
        self._writers |= {writer, commands}
        answering = asyncio.create_task(_pump(answers, writer))
        try:
            while True:
                words, raw = await _command(reader)
                self.heard.append(words[0].upper())
                if self.refusal and words[0].upper() not in _GREETINGS:
                    writer.write(f"-{self.refusal}\r\n".encode())
                else:
                    commands.write(raw)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            answering.cancel()
            for each in (writer, commands):
                each.transport.abort()
                self._writers.discard(each)


async def _pump(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await answers.read(65_536):
        writer.write(data)
    writer.transport.abort()


async def _command(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """The words of a command, and its bytes as they came: an array of strings."""
    raw = await reader.readuntil(b"\r\n")
    words: list[bytes] = []
    for _ in range(int(raw[1:])):
        length = await reader.readuntil(b"\r\n")
        word = await reader.readexactly(int(length[1:]) + 2)
        raw += length + word
        words.append(word[:-2])
    return words, raw
