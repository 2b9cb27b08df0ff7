# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the gateway together.

request -> Tracing -> RequestLog -> Metrics -> Auth -> RateLimit -> InFlight -> BodyLimit -> routes -> exchange -> broker
              every error, wherever it arises, leaves as problem+json
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from picogram.jobs import Observer, open_broker
from picogram.observe.combined import CombinedObserver
from picogram.observe.logs import LogObserver
from picogram.observe.metrics import WorkerMetrics
from picogram.observe.tracing import TracingObserver
from picogram.version import VERSION
from picogram_gateway import jobs, openapi, problems, routes, web
from picogram_gateway.dispatch import Dispatcher
from picogram_gateway.edges import Edges
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.guards import Auth, BodyLimit, InFlight, KeyRing, RateLimit, Rates
from picogram_gateway.telemetry import (
    GatewayMetrics,
    Metrics,
    MetricsServer,
    QueueDepth,
    RequestLog,
    Tracing,
)
from picogram_gateway.workers import Backend


def create_app(settings: GatewaySettings, backend: Backend) -> FastAPI:
    """The gateway; ``backend`` does the work in this process. Raises UsageError for keys that cannot be read."""
    metrics, rates = GatewayMetrics(), Rates(settings)
    observer = _observer(metrics, backend)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        broker = open_broker(settings)
        dispatcher = app.state.dispatcher = Dispatcher(settings, backend, broker, observer)
        depth = QueueDepth(broker, asyncio.get_running_loop())
        metrics.registry.register(depth)
        server = _metrics_server(settings, metrics)
        dispatcher.start()
        yield
        await dispatcher.stop()
        await rates.close()
        if server:
            await asyncio.to_thread(server.close)
        metrics.registry.unregister(depth)

    app = FastAPI(
        title="Picogram",
        version=VERSION,
        description="Ultra-low-bitrate image coding. Decoded pictures are partly imagined.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # ``Tracing`` tells of requests; the framework's own spans are of its insides, its logs hold texts of errors.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings, app.state.backend, app.state.metrics = settings, backend, metrics
    for router in (routes.router, jobs.router, web.router):
        app.include_router(router)
    web.install(app)
    _guard(app, settings, metrics, rates)
    problems.install(app)
    openapi.install(app)
    return app


def _guard(app: FastAPI, settings: GatewaySettings, metrics: GatewayMetrics, rates: Rates) -> None:
    """Middleware; what is added last sees a request first."""
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(InFlight, max_requests=settings.max_requests)
    app.add_middleware(RateLimit, rates=rates, refused=metrics.rate_limited)
    app.add_middleware(Auth, keys=KeyRing.of(settings))
    app.add_middleware(Metrics, metrics=metrics)
    app.add_middleware(RequestLog)
    app.add_middleware(Tracing)
    app.add_middleware(Edges, settings=settings)


def _metrics_server(settings: GatewaySettings, metrics: GatewayMetrics) -> MetricsServer | None:
    if settings.metrics_port is None:
        return None
    return MetricsServer(metrics, settings.metrics_host or settings.host, settings.metrics_port)


def _observer(metrics: GatewayMetrics, backend: Backend) -> Observer:
    """Workers within this process are watched as those elsewhere are, beside the gateway's own metrics."""
    counts = WorkerMetrics(metrics.registry)
    for step in backend.handlers:
        counts.announce(step)
    return CombinedObserver(LogObserver(), counts, TracingObserver())
