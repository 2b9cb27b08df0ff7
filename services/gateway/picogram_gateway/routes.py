# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface, version 1: encode, decode, inspect, models, and three probes."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from picogram.images import DEFAULT_LIMITS, MEDIA_TYPES
from picogram.jobs import Result
from picogram_gateway import openapi
from picogram_gateway.bodies import PICOGRAM, is_image, is_picogram, read_payload
from picogram_gateway.dispatch import Backend, Dispatcher
from picogram_gateway.negotiation import negotiate
from picogram_gateway.problems import ProblemError
from picogram_gateway.settings import Settings

router = APIRouter()


class EncodeQuery(BaseModel):
    """How small, or how good; at most one of ``bytes``, ``bpp`` and ``quality``."""

    model_config = ConfigDict(extra="forbid")

    budget: int | None = Field(
        None, alias="bytes", ge=1, description="Largest size of the file", examples=[800]
    )
    bpp: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Largest size in bits per pixel", examples=[0.04]
    )
    quality: float | None = Field(None, ge=0, le=100, description="Quality instead of a size", examples=[35])
    profile: Literal["base"] = "base"

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(value is not None for value in (self.budget, self.bpp, self.quality)) > 1:
            raise ValueError("give one of bytes, bpp and quality")
        return self


@router.post(
    "/v1/encode",
    summary="Image to .pico file",
    response_class=Response,
    openapi_extra=openapi.image_body(),
    responses=openapi.success("The .pico file", PICOGRAM, headers=openapi.ENCODE_HEADERS)
    | openapi.problems(400, 413, 415, 422, 500, 503, 504),
)
async def encode(request: Request, query: Annotated[EncodeQuery, Query()]) -> Response:
    """Send the image as the raw body, or as the form field `image`."""
    image = await read_payload(request, "image", is_image)
    result = await _dispatcher(request).run(request, "encode", image, **query.model_dump(by_alias=True))
    digest = hashlib.sha256(result.payload).hexdigest()
    headers = {"ETag": f'"{digest}"', "X-Picogram-Bytes": str(len(result.payload))}
    if "bpp" in result.metadata:
        headers["X-Picogram-Bpp"] = f"{result.metadata['bpp']:.6f}"
    return _respond(result, headers)


@router.post(
    "/v1/decode",
    summary=".pico file to image",
    response_class=Response,
    openapi_extra=openapi.picogram_body(),
    responses=openapi.success("The image, partly imagined", *MEDIA_TYPES)
    | openapi.problems(400, 406, 413, 415, 422, 500, 503, 504),
)
async def decode(request: Request) -> Response:
    """Send the file as the raw body, or as the form field `file`; `Accept` chooses the image type.

    What the file does not hold, the decoder imagines: do not take details for evidence.
    """
    media_type = negotiate(",".join(request.headers.getlist("accept")), list(MEDIA_TYPES))
    data = await read_payload(request, "file", is_picogram)
    result = await _dispatcher(request).run(request, "decode", data, media_type=media_type)
    return _respond(result, {"Vary": "Accept"})


@router.post(
    "/v1/inspect",
    summary="What a .pico file says about itself",
    response_class=Response,
    openapi_extra=openapi.picogram_body(),
    responses=openapi.json_success("Header and sections", openapi.INSPECT_EXAMPLE)
    | openapi.problems(400, 413, 415, 422, 500, 503, 504),
)
async def inspect(request: Request) -> Response:
    """Reads the header only; no model runs."""
    data = await read_payload(request, "file", is_picogram)
    return _respond(await _dispatcher(request).run(request, "inspect", data))


@router.get(
    "/v1/models",
    summary="Profiles, models and limits",
    responses=openapi.json_success("What this server can do", openapi.MODELS_EXAMPLE)
    | openapi.problems(500, 503),
)
async def models(request: Request) -> dict[str, Any]:
    """The manifests of the installed models, with their hashes and licences."""
    settings: Settings = request.app.state.settings
    backend: Backend = request.app.state.backend
    limits = {
        "max_body_bytes": settings.max_body_bytes,
        "max_pixels": DEFAULT_LIMITS.max_pixels,
        "job_timeout_seconds": settings.job_timeout_seconds,
    }
    return {**backend.catalogue(), "limits": limits, "media_types": list(MEDIA_TYPES)}


@router.get("/livez", summary="Does the process respond?")
async def livez() -> dict[str, str]:
    """Always 200."""
    return {"status": "alive"}


@router.get("/startupz", summary="Are the models loaded?", responses=openapi.problems(503))
async def startupz(request: Request) -> dict[str, str]:
    """200 once the models are loaded."""
    if not _dispatcher(request).warm:
        raise ProblemError(503, "not-ready", "Not ready", "the models are not loaded yet")
    return {"status": "started"}


@router.get("/readyz", summary="Should requests be sent here?", responses=openapi.problems(503))
async def readyz(request: Request) -> dict[str, str]:
    """200 while the models are loaded, the workers run and nobody shuts the server down."""
    if not _dispatcher(request).ready:
        raise ProblemError(
            503, "not-ready", "Not ready", "the server is starting, stopping or without workers"
        )
    return {"status": "ready"}


def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.app.state.dispatcher
    return dispatcher


def _respond(result: Result, headers: dict[str, str] | None = None) -> Response:
    """The result's bytes, its size in pixels where known, and where the time went."""
    headers = headers or {}
    for name in ("width", "height"):
        if name in result.metadata:
            headers[f"X-Picogram-{name.title()}"] = str(result.metadata[name])
    headers["Server-Timing"] = ", ".join(f"{n};dur={1000 * s:.1f}" for n, s in result.timings.items())
    return Response(result.payload, headers=headers, media_type=result.media_type)
