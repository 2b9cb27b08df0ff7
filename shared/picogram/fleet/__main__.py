# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram.fleet``: run a fleet in the foreground until SIGTERM or Ctrl-C; a second one kills it."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from picogram.cli.batch import report
from picogram.errors import PicogramError
from picogram.fleet.processes import Fleet
from picogram.fleet.store_server import ValkeyServer

_LOOK_EVERY = 0.5


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
    signals = _Signals()
    with tempfile.TemporaryDirectory(prefix="picogram-fleet-") as scratch:
        store: ValkeyServer | None = None
        try:
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
            return report(error)
        finally:
            if store:
                store.stop()
    return 0


def _run(fleet: Fleet, signals: _Signals, start_seconds: float) -> None:
    fleet.start()
    fleet.wait_ready(start_seconds, stopping=lambda: signals.stopping)
    if not signals.stopping:
        print(f"ready: {fleet.url}", flush=True)
        print(f"metrics: http://127.0.0.1:{fleet.metrics_port}/metrics (gateway)", flush=True)
        for worker in fleet.workers:
            print(f"metrics: http://127.0.0.1:{worker.port}/metrics ({worker.name})", flush=True)
    while not signals.stopping:
        time.sleep(_LOOK_EVERY)
        if not signals.stopping and (revived := fleet.revive()):
            print(f"died and started again: {', '.join(revived)}", file=sys.stderr, flush=True)
    print("draining", file=sys.stderr, flush=True)


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
