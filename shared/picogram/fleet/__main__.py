# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram.fleet``: run a fleet in the foreground until SIGTERM or Ctrl-C; a second one kills it.

Standard output has the address, for scripts that wait for it; where PICOGRAM_LOG_FORMAT asks for JSON, every line is.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import structlog

from picogram.environment import read_settings
from picogram.errors import PicogramError
from picogram.fleet.processes import Fleet
from picogram.fleet.store_server import ValkeyServer
from picogram.observe import logs
from picogram.observe.log_settings import LogSettings

_LOOK_EVERY = 0.5
logger = structlog.get_logger("picogram.fleet")


class _Signals:
    """Whether the end was asked for. A second time ends all at once."""

    def __init__(self) -> None:
        self.fleet: Fleet | None = None
        self.stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            if self.fleet:
                self.fleet.kill()
            raise SystemExit(128 + number)
        self.stopping = True


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 where the fleet cannot start or one of it will not live."""
    wanted = _parser().parse_args(arguments)
    logs.configure(LogSettings.model_construct(), service="fleet")
    signals = _Signals()
    with tempfile.TemporaryDirectory(prefix="picogram-fleet-") as scratch:
        store: ValkeyServer | None = None
        try:
            logs.configure(read_settings(LogSettings), service="fleet")
            if wanted.redis is None:
                store = ValkeyServer(Path(wanted.data or scratch))
                store.start()
            fleet = signals.fleet = Fleet(
                store.url if store else wanted.redis,
                port=wanted.port,
                encoders=wanted.encoders,
                decoders=wanted.decoders,
                lmms=wanted.lmms,
            )
            try:
                _run(fleet, signals, wanted.start_seconds)
            finally:
                fleet.stop()
        except PicogramError as error:
            logger.error("the fleet ends", problem=str(error), slug=error.slug)
            return error.exit_code
        finally:
            if store:
                store.stop()
    return 0


def _run(fleet: Fleet, signals: _Signals, start_seconds: float) -> None:
    fleet.start()
    fleet.wait_ready(start_seconds, stopping=lambda: signals.stopping)
    if not signals.stopping:
        logger.info("ready", url=fleet.url)
        _say(f"ready: {fleet.url}")
        _say(f"metrics: http://127.0.0.1:{fleet.metrics_port}/metrics (gateway)")
        for worker in fleet.workers:
            _say(f"metrics: http://127.0.0.1:{worker.port}/metrics ({worker.name})")
    while not signals.stopping:
        time.sleep(_LOOK_EVERY)
        if not signals.stopping and (revived := fleet.revive()):
            logger.warning(f"died and started again: {', '.join(revived)}")
    logger.info("draining")


def _say(line: str) -> None:
    """For people and scripts; a reader that went away ends no fleet."""
    if os.environ.get("PICOGRAM_LOG_FORMAT") == "json":
        line = json.dumps({"event": line, "level": "info", "service": "fleet"})
    with suppress(OSError, ValueError):
        print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="picogram.fleet", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of the gateway (default: %(default)s)")
    parser.add_argument("--encoders", type=int, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--decoders", type=int, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--lmms", type=int, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--redis", metavar="URL", help="a job store that runs already (default: one of its own)"
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="of its own job store, to be found again (default: a temporary one)"
    )
    parser.add_argument(
        "--start-seconds", type=float, default=300.0, metavar="S", help="to be ready (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
