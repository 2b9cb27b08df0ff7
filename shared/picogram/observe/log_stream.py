# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Standard error as logs need it: nothing that happens to its reader breaks or holds up the work.

reader gone, disk full, stream closed or never there   the line is dropped
reader that does not read (a full pipe)                waited for once, a second; then lines are dropped until it reads
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from contextlib import suppress
from typing import Final

_PATIENCE: Final = 1.0
"""Seconds for a reader to make room."""
_PART: Final = 4096
"""What a pipe that has room at all takes without blocking (PIPE_BUF)."""


class LogStream(io.TextIOBase):
    """A text stream over whatever ``sys.stderr`` is at the time. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stalled = False
        self.dropped = 0
        """Lines that nobody will read since the last that was written."""

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether a person reads."""
        with suppress(Exception):
            return sys.stderr.isatty()
        return False

    def write(self, text: str) -> int:
        """Write it, or drop it. ``text``: whole lines."""
        with self._lock:
            note = f'{{"event": "{self.dropped} log lines were dropped"}}\n' if self.dropped else ""
            if self._written(note + text):
                self.dropped = 0
            else:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _written(self, text: str) -> bool:
        try:
            number = _number()
            if number is None:
                sys.stderr.write(text)
                sys.stderr.flush()
                return True
            data = memoryview(text.encode("utf-8", "backslashreplace"))
            while data:
                if not self._room(number):
                    return False
                data = data[os.write(number, data[:_PART]) :]
            return True
        except (
            Exception
        ):  # AttributeError where there is no standard error, ValueError where it is closed, OSError
            return False

    def _room(self, number: int) -> bool:
        patience = 0.0 if self._stalled else _PATIENCE
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        self._stalled = not poll.poll(1000 * patience)
        return not self._stalled


def _number() -> int | None:
    """The descriptor behind standard error, None where it is a stream of Python's alone. Raises if there is neither."""
    with suppress(io.UnsupportedOperation):
        return sys.stderr.fileno()
    return None
