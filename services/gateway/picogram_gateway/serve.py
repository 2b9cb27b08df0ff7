# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the gateway with its embedded workers."""

from __future__ import annotations

import logging
import sys

import structlog
import uvicorn

from picogram_gateway.app import create_app
from picogram_gateway.settings import Settings


def main(host: str, port: int) -> None:
    """Serve until interrupted; requests in flight get 30 seconds to end."""
    settings = Settings(host=host, port=port)
    configure_logging(settings)
    structlog.get_logger("picogram.gateway").info("starting", url=f"http://{host}:{port}", docs="/docs")
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=30,
    )


def configure_logging(settings: Settings) -> None:
    """Text on a terminal, JSON elsewhere, on standard error; uvicorn speaks from warnings up."""
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if as_text else [structlog.processors.format_exc_info]),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
