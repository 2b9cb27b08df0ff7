# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes under test: started with settings, probed, signalled, and killed at the end whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from valkey_server import free_port

PROGRAM = Path(__file__).parent / "worker_program.py"


class WorkerUnderTest:
    """A worker process and its probes."""

    def __init__(self, folder: Path, store_url: str, command: Sequence[str], **settings: Any) -> None:
        """``settings``: variables without ``PICOGRAM_``, in small letters."""
        self.port = free_port()
        self.log_file = folder / f"worker-{self.port}.log"
        given = {
            "redis_url": store_url,
            "health_host": "127.0.0.1",
            "health_port": self.port,
            "lease_seconds": 1.0,
            **settings,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PICOGRAM_")}
        kept |= {name: value for name, value in os.environ.items() if name == "PICOGRAM_CACHE"}
        variables = {f"PICOGRAM_{name.upper()}": str(value) for name, value in given.items()}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=kept | variables, stderr=log, start_new_session=True
            )

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        return self.probe("/readyz")[0] == 200

    def wait(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until the condition holds. Fails with the log if the process ends or time runs out."""
        give_up = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < give_up, f"in vain:\n{self.log()}"
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int:
        """The exit code after the signal."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def log(self) -> str:
        return self.log_file.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The log, which is JSON as standard error is no terminal."""
        return [json.loads(line) for line in self.log().splitlines()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
