# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What anybody may ask for, without a key: the web page and three probes.

The page is ``/``, the interface's description at ``/docs``, and the files they consist of under ``/web/``. They are read
once, when the server starts. Nothing but these files can be asked for, whatever the path. A page may load and reach only
this server, and every file has an ETag, so that a browser asks again each time and is mostly told 304.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response

from picogram_gateway import openapi
from picogram_gateway.exchange import dispatcher_of
from picogram_gateway.problems import not_ready

logger = structlog.get_logger("picogram.gateway")
router = APIRouter(tags=["probes"])

INDEX: Final = "index.html"
INTERFACE: Final = "api.html"
MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served, by suffix; the machine's own table of types is not asked."""
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_FOR_SWAGGER_UI: Final = CONTENT_SECURITY_POLICY.replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
).replace("; require-trusted-types-for 'script'", "")
"""Swagger UI sets styles in the document and builds markup from text; its scripts still come from here alone."""
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """One file as it is sent."""

    body: bytes
    media_type: str
    etag: str


def install(app: FastAPI) -> None:
    """Let the app serve the page. Without its files there is a warning in the log, and 404."""
    folder = page_folder()
    if folder is None:
        logger.warning("the web page is not part of this installation")
        return
    assets = read_assets(folder)

    async def index(request: Request) -> Response:
        return _answer(request, assets[INDEX])

    async def interface(request: Request) -> Response:
        response = _answer(request, assets[INTERFACE])
        response.headers["Content-Security-Policy"] = _FOR_SWAGGER_UI
        return response

    async def file(request: Request, path: str) -> Response:
        if path not in assets:
            raise HTTPException(404, "the web page has no such file")
        return _answer(request, assets[path])

    methods = ["GET", "HEAD"]
    app.add_api_route("/", index, methods=methods, include_in_schema=False)
    app.add_api_route("/docs", interface, methods=methods, include_in_schema=False)
    app.add_api_route("/web/{path:path}", file, methods=methods, include_in_schema=False)


def page_folder() -> Path | None:
    """``web`` beside this module, as in a wheel, or at the root of the repository."""
    here = Path(__file__).resolve()
    folders = (here.with_suffix(""), here.parents[min(3, len(here.parents) - 1)] / "web")
    return next((folder for folder in folders if (folder / INDEX).is_file()), None)


def read_assets(folder: Path) -> dict[str, Asset]:
    """The files below ``folder`` that are served, by their path relative to it."""
    assets = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in MEDIA_TYPES and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            assets[path.relative_to(folder).as_posix()] = Asset(body, MEDIA_TYPES[path.suffix], etag)
    return assets


def _answer(request: Request, asset: Asset) -> Response:
    headers = {**_HEADERS, "ETag": asset.etag}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or asset.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


@router.get("/livez", summary="Does the process work?", responses=openapi.problems(503))
async def livez(request: Request) -> dict[str, str]:
    """200 unless something has ended that only a restart brings back; what is away for now is no matter of this one."""
    if problem := dispatcher_of(request).broken():
        raise not_ready(problem)
    return {"status": "alive"}


@router.get("/startupz", summary="Are the models loaded?", responses=openapi.problems(503))
async def startupz(request: Request) -> dict[str, str]:
    """200 once the models of this process are loaded; a gateway with workers elsewhere has none."""
    if not dispatcher_of(request).warm:
        raise not_ready(dispatcher_of(request).not_warm)
    return {"status": "started"}


@router.get("/readyz", summary="Should requests be sent here?", responses=openapi.problems(503))
async def readyz(request: Request) -> dict[str, str]:
    """200 while the models are loaded, the job store answers and nobody shuts the server down."""
    await dispatcher_of(request).check()
    return {"status": "ready"}
