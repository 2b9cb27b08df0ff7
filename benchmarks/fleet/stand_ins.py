# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Workers without models, for what is measured around them: ``python -m benchmarks.fleet.stand_ins`` is an encoder.

The encoder's answer is a .pico file made of the hash of what came in, after a wait that depends on it as well; a payload
that ends in POISON takes its process down.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

from picogram.bitstream import MEDIA_TYPE, Header, Picogram, Profile, serialise
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.workers.process import run_worker

POISON = b"POISON"


def answer_to(payload: bytes) -> bytes:
    """The one right answer."""
    return serialise(Picogram(Header(Profile.BASE, 64, 64, 1), hashlib.sha256(payload).digest()))


def encode(jobs: list[Job]) -> list[Outcome]:
    """Waits 5 to 30 ms a job."""
    if any(job.payload.endswith(POISON) for job in jobs):
        os._exit(9)
    for job in jobs:
        time.sleep(0.005 + hashlib.sha256(job.payload).digest()[0] / 10_000)
    return [Result(answer_to(job.payload), MEDIA_TYPE) for job in jobs]


def load() -> Handler:
    """Nothing to load."""
    return encode


if __name__ == "__main__":
    sys.exit(run_worker("encoder", load))
