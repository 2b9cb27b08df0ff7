# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram_decoder``: a process that works off the queue ``decoder``."""

from __future__ import annotations

import sys

from picogram.environment import read_settings
from picogram.jobs import Handler
from picogram.workers.process import run_worker


def load() -> Handler:
    """The handler, its models loaded."""
    from picogram_decoder.decoder_handler import load_handler
    from picogram_decoder.decoder_settings import DecoderSettings

    handler = load_handler(read_settings(DecoderSettings))
    handler.warm_up()
    return handler


def main() -> int:
    """The exit code, after SIGTERM."""
    return run_worker("decoder", load, await_models=True)


if __name__ == "__main__":
    sys.exit(main())
