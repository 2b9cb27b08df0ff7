# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram_encoder``: a process that works off the queue ``encoder``."""

from __future__ import annotations

import sys

from picogram.jobs import Handler
from picogram.workers.process import run_worker


def load() -> Handler:
    """The handler, its models loaded."""
    from picogram_encoder.encoder_handler import handler, warm_up

    warm_up()
    return handler


def main() -> int:
    """The exit code, after SIGTERM."""
    return run_worker("encoder", load)


if __name__ == "__main__":
    sys.exit(main())
