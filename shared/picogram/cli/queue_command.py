# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram queue``: what waits and runs in a fleet's job store, who works, and what was given up."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from picogram.cli.batch import missing_extra, say
from picogram.environment import read_settings
from picogram.errors import UsageError
from picogram.jobs.connect import open_broker
from picogram.jobs.job import PRIORITIES
from picogram.jobs.queue_settings import QueueSettings

if TYPE_CHECKING:
    from picogram.jobs.redis import RedisBroker

app = typer.Typer(help="A fleet's queues, workers and dead letters.", no_args_is_help=True)
STEPS = ("encoder", "decoder", "lmm", "inspector")

Redis = Annotated[
    str | None,
    typer.Option("--redis", help="URL of the job store. Default: PICOGRAM_REDIS_URL.", show_default=False),
]


@app.callback()
def queue_command() -> None:
    """A fleet's queues, workers and dead letters."""


@app.command()
def status(redis: Redis = None) -> int:
    """Jobs that wait or run, dead letters and workers, by step."""

    async def show(broker: RedisBroker) -> None:
        workers = await broker.workers()
        for step in STEPS:
            depths = [await broker.depth(step, priority) for priority in PRIORITIES]
            dead = await broker.store.client.xlen(broker.store.keys.dead(step))
            names = [worker for worker in workers if worker.step == step]
            counts = ", ".join(f"{n} {p}" for n, p in zip(depths, PRIORITIES, strict=True))
            say(f"{step:<10} {sum(depths)} queued or running ({counts}), {len(names)} workers, {dead} dead")
            for worker in sorted(names, key=lambda worker: worker.name):
                age = time.time() - worker.started_at
                say(f"  {worker.name}  version {worker.version}, up {age:.0f} s")

    return _with_broker(redis, show)


@app.command()
def dead(
    step: Annotated[str, typer.Argument(help="encoder, decoder, lmm or inspector.", show_default=False)],
    retry: Annotated[
        bool, typer.Option("--retry", help="Submit them again (their payloads are kept for a day).")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Forget them.")] = False,
    redis: Redis = None,
) -> int:
    """Jobs that were given up because every worker that took them died."""
    if retry and drop:
        raise UsageError("give --retry or --drop, not both")
    if step not in STEPS:
        raise UsageError(f"there is no step {step!r}, only {', '.join(STEPS)}")

    async def show(broker: RedisBroker) -> None:
        from picogram.jobs.redis.letters import DeadLetters

        letters = DeadLetters(broker, step)
        async for letter in letters.read():
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(letter.at))
            line = f"{letter.job_id}  {letter.kind} at {letter.step}, {letter.attempts} attempts, {when} UTC"
            if retry:
                line += f"; again as {await letters.retry(letter)}"
            if drop:
                await letters.drop(letter)
                line += "; dropped"
            say(line)

    return _with_broker(redis, show)


def _with_broker(redis: str | None, act: Callable[[RedisBroker], Awaitable[None]]) -> int:
    if redis is not None:
        os.environ["PICOGRAM_REDIS_URL"] = redis
    settings = read_settings(QueueSettings)
    if settings.redis_url is None:
        raise UsageError("give --redis URL or set PICOGRAM_REDIS_URL")
    try:
        from picogram.jobs.redis import RedisBroker
    except ModuleNotFoundError as error:
        raise missing_extra(f"the job store (no module {error.name})", "queue") from error

    async def run() -> None:
        broker = open_broker(settings)
        assert isinstance(broker, RedisBroker)  # noqa: S101 - by the settings
        try:
            await act(broker)
        finally:
            await broker.close()

    asyncio.run(run())
    return 0
