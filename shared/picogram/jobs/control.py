# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The line between a running handler and its worker: whether to go on, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from picogram.errors import JobCanceled

Listener = Callable[[str, Mapping[str, Any]], object]


class JobControl:
    """Belongs to one job while it runs. Thread-safe: the handler has its own thread, the worker its event loop."""

    def __init__(self) -> None:
        self._canceled = threading.Event()
        self._listener: Listener | None = None

    @property
    def canceled(self) -> bool:
        """Whether the job was given up: canceled, past its deadline, or taken over by another worker."""
        return self._canceled.is_set()

    def check(self) -> None:
        """Raises JobCanceled if the job was given up. For the pauses of long work, such as between diffusion steps."""
        if self.canceled:
            raise JobCanceled("the job was canceled")

    def progress(self, fraction: float, **facts: Any) -> None:
        """Tell whoever watches how much of this step is done (0 to 1), with plain values as further facts."""
        self._tell("progress", {"fraction": min(1.0, max(0.0, fraction)), **facts})

    def preview(self, media_type: str, data: bytes) -> None:
        """Show whoever watches an early picture. ``data`` should be small (some 100 KB): it is sent with the event."""
        self._tell("preview", {"media_type": media_type, "data": data})

    def cancel(self) -> None:
        """For the worker: let the handler know at its next check."""
        self._canceled.set()

    def listen(self, listener: Listener) -> None:
        """For the worker: hear of progress, called in the handler's thread."""
        self._listener = listener

    def _tell(self, name: str, data: Mapping[str, Any]) -> None:
        if self._listener is not None:
            self._listener(name, data)
