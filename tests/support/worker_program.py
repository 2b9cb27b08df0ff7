# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A worker process that does as its jobs say, and notes its batches: ``worker_program.py NOTES LOAD``.

A job's payload is a command: ``echo X``, ``sleep SECONDS``, ``fail``, ``crash``. LOAD: seconds that loading takes, or
``broken`` or ``missing``; or ``late PATH``: missing until that file is there, which it waits for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import structlog

from picogram.errors import ModelMissing
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.workers.process import run_worker


def _obey(job: Job) -> Outcome:
    command, _, rest = job.payload.decode().partition(" ")
    structlog.get_logger("picogram.test").info("obeying", command=command)
    if command == "sleep":
        time.sleep(float(rest))
    elif command == "fail":
        return ZeroDivisionError("a secret of this worker")
    elif command == "crash":
        os._exit(9)
    return Result(rest.encode(), "text/plain")


def _load(how: str) -> Handler:
    if how == "broken":
        raise ZeroDivisionError("no such model")
    if how == "missing":
        raise ModelMissing("weights are missing: run something")
    command, _, path = how.partition(" ")
    if command == "late":
        if not Path(path).exists():
            raise ModelMissing("the model tall is missing: run something")
    else:
        time.sleep(float(how))

    def handler(jobs: list[Job]) -> list[Outcome]:
        with Path(sys.argv[1]).open("a") as notes:
            notes.write(f"{len(jobs)} {','.join(job.payload.decode() for job in jobs)}\n")
        return [_obey(job) for job in jobs]

    return handler


if __name__ == "__main__":
    sys.exit(run_worker("toy", lambda: _load(sys.argv[2]), await_models="late" in sys.argv[2]))
