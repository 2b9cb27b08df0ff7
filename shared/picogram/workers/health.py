# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Probes and metrics of a worker, on a port of their own: requests come in, plain text goes out.

    /livez     the event loop turns and no task of it has died (a batch in its thread does not matter)   200, else 503
    /startupz  the models are loaded                                             200, else 503
    /readyz    loaded, the job store answers, not shutting down                  200, else 503 and why
    /metrics   whatever the registry holds, in the format that the scraper asks for

The server has threads of its own, so that it can tell of an event loop that hangs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from picogram.errors import UsageError

logger = logging.getLogger("picogram.worker")
STALE_SECONDS = 60.0
"""An event loop without a sign of life for that long counts as dead."""
_SLOW_CLIENT_SECONDS = 5.0
_POLL_SECONDS = 0.1  # how soon `close` is heard


class Health:
    """What the probes report. Written by the worker's event loop, read by the server's threads."""

    def __init__(self) -> None:
        self.warm = False
        self.reachable = False
        self.draining = False
        self.broken = ""
        self.awaited = ""
        self._beat = time.monotonic()

    def beat(self) -> None:
        """The event loop turns."""
        self._beat = time.monotonic()

    def alive(self) -> str:
        """Empty, or why not. ``broken``: what the worker cannot go on without has ended."""
        if self.broken:
            return self.broken
        silent = time.monotonic() - self._beat
        return f"no sign of life for {silent:.0f} s" if silent > STALE_SECONDS else ""

    def started(self) -> str:
        """Empty, or why not. ``awaited``: which models are not there yet."""
        if self.warm:
            return ""
        return f"waiting for models: {self.awaited}" if self.awaited else "loading models"

    def ready(self) -> str:
        """Empty, or why not."""
        if self.draining:
            return "shutting down"
        return self.alive() or self.started() or ("" if self.reachable else "no connection to the job store")


class _Server(ThreadingHTTPServer):
    """Says nothing of probes that did not wait for their answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            logger.error("a probe could not be answered", exc_info=error)


class HealthServer:
    """Serves ``health`` and ``registry`` from threads of its own until closed."""

    def __init__(self, health: Health, registry: CollectorRegistry, host: str, port: int) -> None:
        """``port`` 0: any free one, see ``self.port``. Raises UsageError where it cannot listen there."""
        try:
            self._server = _Server((host, port), _probe_handler(health, registry))
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen on {host}:{port} for probes: {error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="health", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _probe_handler(health: Health, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    checks = {"/livez": health.alive, "/startupz": health.started, "/readyz": health.ready}

    class ProbeHandler(BaseHTTPRequestHandler):
        server_version, sys_version = "picogram", ""
        timeout = _SLOW_CLIENT_SECONDS

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in checks:
                problem = checks[path]()
                self._answer(503 if problem else 200, f"{problem or 'ok'}\n".encode())
            elif path == "/metrics":
                encode, media_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(registry), media_type)
            else:
                self._answer(404, b"no such page\n")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds; nobody wants to read that."""

        def _answer(self, status: int, body: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return ProbeHandler
