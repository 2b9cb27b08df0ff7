# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram worker KIND``: a worker process, the same as ``python -m picogram_KIND``."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from picogram.cli.batch import missing_extra


class WorkerKind(StrEnum):
    """What there are workers for; each works off the queue of its name."""

    ENCODER = "encoder"
    DECODER = "decoder"
    LMM = "lmm"


def worker(
    kind: Annotated[WorkerKind, typer.Argument(help="What it does.", show_default=False)],
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", help="URL of the job store. Default: PICOGRAM_REDIS_URL.", show_default=False
        ),
    ] = None,
) -> int:
    """Run one worker process of a fleet until it is told to end; PICOGRAM_* variables are its settings."""
    if redis is not None:
        os.environ["PICOGRAM_REDIS_URL"] = redis
    try:
        # By name, for the package that it is in may be left out of an installation.
        module = import_module(f"picogram_{kind}.__main__")
    except ModuleNotFoundError as error:
        raise missing_extra(f"the worker (no module {error.name})", "local") from error
    return int(module.main())
