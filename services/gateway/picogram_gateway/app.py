# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the gateway together.

request -> RequestLog -> BodyLimit -> routes -> Dispatcher -> workers
              every error, wherever it arises, leaves as problem+json
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from picogram_gateway import openapi, problems
from picogram_gateway.dispatch import Backend, Dispatcher
from picogram_gateway.limits import BodyLimit
from picogram_gateway.request_log import RequestLog
from picogram_gateway.routes import router
from picogram_gateway.settings import Settings


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> FastAPI:
    """The gateway over ``backend``, which is the embedded one unless a test brings its own."""
    settings = settings or Settings()
    backend = backend or _embedded()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        dispatcher = app.state.dispatcher = Dispatcher(settings, backend)
        dispatcher.start()
        yield
        await dispatcher.stop()

    app = FastAPI(
        title="Picogram",
        version=_version(),
        description="Ultra-low-bitrate image coding. Decoded pictures are partly imagined.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.backend = backend
    app.include_router(router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog)
    problems.install(app)
    openapi.install(app)
    return app


def _embedded() -> Backend:
    """Imported by name: the gateway proper does not depend on the workers, nor they on it."""
    backend: Backend = importlib.import_module("picogram_gateway.embedded").backend()
    return backend


def _version() -> str:
    try:
        return version("picogram-codec")
    except PackageNotFoundError:
        return "0"
