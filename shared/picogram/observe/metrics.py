# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of workers: what an Observer sees goes in, a registry to be scraped comes out.

All names begin with ``picogram_``; docs/observability.md says what each means and which question it answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from picogram.jobs.broker import Swept
from picogram.jobs.job import Job, Outcome, Result
from picogram.jobs.observer import Ending, Observer

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Jobs per batch."""
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""From a step that does nothing to a large picture on a slow machine."""


def new_registry() -> CollectorRegistry:
    """A registry of this process's memory, processor time, open files, Python version and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class WorkerMetrics(Observer):
    """Counts what workers do. One instance serves any number of workers that share a registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """``registry``: where the metrics go; by default a new one, with this process's own."""
        self.registry = registry = registry or new_registry()
        self._batch_size = Histogram(
            "picogram_batch_size", "Jobs per batch.", ["step"], buckets=SIZES, registry=registry
        )
        self._step_seconds = Histogram(
            "picogram_step_seconds",
            "Time of a batch in the handler.",
            ["step", "task"],
            buckets=SECONDS,
            registry=registry,
        )
        self._wait_seconds = Histogram(
            "picogram_queue_wait_seconds",
            "Time of a job in the queue of a step, from when it came until it was taken.",
            ["step", "priority"],
            buckets=SECONDS,
            registry=registry,
        )
        self._jobs = Counter(
            "picogram_jobs",
            "Jobs reported: done, moved, failed, error, late.",
            ["step", "outcome"],
            registry=registry,
        )
        self._redeliveries = Counter(
            "picogram_redeliveries",
            "Jobs taken from dead workers to be done again.",
            ["step"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "picogram_dead_letters", "Jobs given up after too many attempts.", ["step"], registry=registry
        )
        self._bytes = Counter(
            "picogram_payload_bytes", "Payloads taken and made.", ["step", "direction"], registry=registry
        )
        self._load_seconds = Gauge(
            "picogram_model_load_seconds", "Time to load the models and warm up.", ["step"], registry=registry
        )
        self._busy = Gauge(
            "picogram_worker_busy", "1 while a batch runs, else 0.", ["step"], registry=registry
        )

    def announce(self, step: str) -> None:
        """Let counters begin at 0 rather than be absent, so that the first event shows as a rise."""
        for ending in ("done", "moved", "failed", "error", "late"):
            self._jobs.labels(step, ending)
        for direction in ("in", "out"):
            self._bytes.labels(step, direction)
        self._redeliveries.labels(step)
        self._dead_letters.labels(step)
        self._busy.labels(step)

    def loaded(self, step: str, seconds: float) -> None:
        """The models are loaded, after so many seconds."""
        self._load_seconds.labels(step).set(seconds)

    def fetched(self, step: str, jobs: Sequence[Job]) -> None:
        now = time.time()
        self._batch_size.labels(step).observe(len(jobs))
        self._bytes.labels(step, "in").inc(sum(len(job.payload) for job in jobs))
        for job in jobs:
            self._wait_seconds.labels(step, job.priority).observe(max(0.0, now - job.queued_at))

    @contextmanager
    def started(self, step: str, jobs: Sequence[Job]) -> Iterator[None]:
        busy = self._busy.labels(step)
        busy.set(1)
        try:
            yield
        finally:
            busy.set(0)

    def batch(self, step: str, task: str, size: int, seconds: float) -> None:
        self._step_seconds.labels(step, task).observe(seconds)

    def finished(self, step: str, job: Job, outcome: Outcome, ending: Ending) -> None:
        self._jobs.labels(step, ending).inc()
        if isinstance(outcome, Result):
            self._bytes.labels(step, "out").inc(len(outcome.payload))

    def swept(self, step: str, swept: Swept) -> None:
        self._redeliveries.labels(step).inc(swept.reclaimed)
        self._dead_letters.labels(step).inc(swept.dead)
