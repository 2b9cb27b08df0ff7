# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m picogram_lmm``: a process that works off the queue ``lmm``, on the library's own models or on vLLM."""

from __future__ import annotations

import sys

from picogram.environment import read_settings
from picogram.jobs import Handler
from picogram.workers.process import run_worker


def load() -> Handler:
    """The handler, its models loaded."""
    from picogram_lmm.lmm_settings import LmmSettings
    from picogram_lmm.loading import load_handler

    return load_handler(read_settings(LmmSettings))


def main() -> int:
    """The exit code, after SIGTERM."""
    return run_worker("lmm", load, texts=True, await_models=True)


if __name__ == "__main__":
    sys.exit(main())
