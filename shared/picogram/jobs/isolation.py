# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""One bad job costs nobody else: how a handler is called so that errors stay with the jobs that cause them."""

from __future__ import annotations

import gc
import sys

from picogram.errors import JobOutOfMemory
from picogram.jobs.job import Handler, Job, Outcome


def run_isolated(handler: Handler, batch: list[Job]) -> list[Outcome]:
    """The handler's outcomes, one per job.

    If it runs out of memory, the batch is halved once, and what then still does not fit is tried alone; if it fails as a
    whole in another way, each job is tried alone. A job that fails alone fails, and no other.
    """
    try:
        return _call(handler, batch)
    except Exception as error:
        if len(batch) == 1:
            return [_failure(error)]
        memory = is_out_of_memory(error)
    if not memory:
        return _singly(handler, batch)
    _free()
    outcomes: list[Outcome] = []
    half = (len(batch) + 1) // 2
    for part in (batch[:half], batch[half:]):
        try:
            outcomes += _call(handler, part)
        except Exception as error:
            if is_out_of_memory(error):
                _free()
            outcomes += [_failure(error)] if len(part) == 1 else _singly(handler, part)
    return outcomes


def is_out_of_memory(error: Exception) -> bool:
    """Python's MemoryError or torch's OutOfMemoryError, which is known by its name so that torch need not be there."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _call(handler: Handler, batch: list[Job]) -> list[Outcome]:
    try:
        outcomes = handler(batch)
    except Exception:
        raise
    except BaseException as error:
        # `sys.exit`, or a panic in Rust: within this thread it is no reason for the process to end.
        raise RuntimeError(f"the handler raised {type(error).__name__}: {error}") from error
    if len(outcomes) != len(batch):
        raise RuntimeError(f"the handler gave {len(outcomes)} outcomes for {len(batch)} jobs")
    return [_failure(each) if isinstance(each, Exception) else each for each in outcomes]


def _singly(handler: Handler, batch: list[Job]) -> list[Outcome]:
    return [outcome for job in batch for outcome in run_isolated(handler, [job])]


def _failure(error: Exception) -> Exception:
    if not is_out_of_memory(error):
        return error
    _free()
    return JobOutOfMemory("the job does not fit this worker's memory, not even alone")


def _free() -> None:
    """Give memory back before the next try; traceback frames of the failed one are gone by now."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
