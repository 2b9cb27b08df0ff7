# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP connections that cannot be held for nothing: by request heads that never end, or by answers that nobody takes.

uvicorn has a limit for a head's size and none for its time, and keeps what a client does not read for ever.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """h11 with two more timers. ``patience`` is in seconds."""

    patience: ClassVar[float] = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing is known of it yet; the clock runs."""
        self._head_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock any more."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What belongs to no request yet has to become one in time."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch_head()
        else:
            self._stop_head_timer()

    def on_response_complete(self) -> None:
        """The answer is in the socket's buffer; it has to leave it in time."""
        super().on_response_complete()
        self._watch_reader(0)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.patience, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reader(self, before: int) -> None:
        """Ends the connection when a whole period passed without a byte being taken."""
        left = self.transport.get_write_buffer_size()
        if left == 0:
            return
        if left == before:
            self.transport.abort()
        else:
            self.loop.call_later(self.patience, self._watch_reader, left)


def with_patience(seconds: float) -> type[Connection]:
    """The protocol for uvicorn, which makes its instances itself."""
    return type("PatientConnection", (Connection,), {"patience": seconds})
