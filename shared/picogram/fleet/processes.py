# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of a fleet: started with settings for this machine, watched over, and drained in the right order."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from picogram.environment import read_settings
from picogram.errors import PicogramError
from picogram.fleet.store_server import free_port
from picogram.workers.worker_settings import WorkerSettings

_PROBE_SECONDS: Final = 2.0
_PAUSE: Final = 0.2
_LIVED: Final = 30.0
"""A process that ends by itself younger than this, three times in a row, will not live."""
_SPARE: Final = 30.0
_EARLY_DEATHS: Final = 3


@dataclass
class FleetProcess:
    """One gateway or worker. ``port``: of its probes."""

    name: str
    module: str
    port: int
    settings: Mapping[str, str]
    child: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    early_deaths: int = 0

    def start(self) -> None:
        """Run it, its log lines on our standard error."""
        self.started_at = time.monotonic()
        self.child = subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-m", self.module],
            env={**os.environ, **self.settings},
            start_new_session=True,  # Ctrl-C in a terminal is ours to handle
        )

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.child is not None and self.child.poll() is None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it has an exit code of its own, and was not killed."""
        return self.child is not None and (self.child.poll() or 0) > 0

    def ready(self) -> bool:
        """Whether it says so."""
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False


class Fleet:
    """Gateway, encoders, decoders and language-model workers on one job store, all on loopback."""

    def __init__(
        self,
        redis_url: str,
        *,
        port: int = 0,
        encoders: int = 1,
        decoders: int = 1,
        lmms: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``port``: of the gateway, 0 for a free one. ``settings``: further environment variables of all processes."""
        # A demonstration does without models for words rather than wait for them.
        models = os.environ.get("PICOGRAM_LMM_MODELS", "pulled")
        common = {"PICOGRAM_REDIS_URL": redis_url, "PICOGRAM_LMM_MODELS": models, **(settings or {})}
        self.port = port or free_port()
        self.metrics_port = free_port()
        self.gateway = FleetProcess(
            "gateway",
            "picogram_gateway",
            self.port,
            {
                **common,
                "PICOGRAM_HOST": "127.0.0.1",
                "PICOGRAM_PORT": str(self.port),
                "PICOGRAM_METRICS_HOST": "127.0.0.1",
                "PICOGRAM_METRICS_PORT": str(self.metrics_port),
            },
        )
        replicas = {"encoder": encoders, "decoder": decoders, "lmm": lmms}
        self.workers = [
            _worker(step, number, common) for step, count in replicas.items() for number in range(count)
        ]

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def processes(self) -> list[FleetProcess]:
        """All of them, in the order in which they are drained: first what accepts work."""
        return [self.gateway, *self.workers]

    def start(self) -> None:
        """Start all; returns at once."""
        for process in self.processes:
            process.start()

    def wait_ready(self, seconds: float, stopping: Callable[[], bool] = lambda: False) -> None:
        """Until all are ready, or ``stopping``. Raises PicogramError if one dies or that takes longer."""
        give_up = time.monotonic() + seconds
        waiting = self.processes
        while waiting and not stopping():
            for process in waiting:
                if not process.running:
                    code = process.child.returncode if process.child else None
                    raise PicogramError(f"{process.name} ended with code {code} before it was ready")
            if time.monotonic() > give_up:
                raise PicogramError(f"not ready within {seconds:.0f} s: {', '.join(p.name for p in waiting)}")
            waiting = [process for process in waiting if not process.ready()]
            time.sleep(_PAUSE)

    def revive(self) -> list[str]:
        """Start again whatever died; the names. Raises PicogramError for one that dies again and again."""
        dead = [process for process in self.processes if not process.running]
        for process in dead:
            early = time.monotonic() - process.started_at < _LIVED and process.ended_by_itself
            process.early_deaths = process.early_deaths + 1 if early else 0
            if process.early_deaths >= _EARLY_DEATHS:
                raise PicogramError(f"{process.name} dies again and again")
            process.start()
        return [process.name for process in dead]

    def stop(self, seconds: float | None = None) -> None:
        """Drain: the gateway answers what it has accepted, then the workers end. What is left after ``seconds`` of each
        is killed; None: what it may take to drain, and some.
        """
        if seconds is None:
            seconds = read_settings(WorkerSettings).drain_seconds + _SPARE
        for group in ([self.gateway], self.workers):
            give_up = time.monotonic() + seconds
            for process in group:
                if process.child and process.running:
                    process.child.terminate()
            for process in group:
                _reap(process, give_up)

    def kill(self) -> None:
        """End all at once."""
        for process in self.processes:
            _reap(process, 0.0)


def _worker(step: str, number: int, common: Mapping[str, str]) -> FleetProcess:
    port = free_port()
    probes = {"PICOGRAM_HEALTH_HOST": "127.0.0.1", "PICOGRAM_HEALTH_PORT": str(port)}
    return FleetProcess(f"{step} {number + 1}", f"picogram_{step}", port, {**common, **probes})


def _reap(process: FleetProcess, give_up: float) -> None:
    if process.child is None:
        return
    try:
        process.child.wait(max(0.0, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.child.kill()
        process.child.wait()
