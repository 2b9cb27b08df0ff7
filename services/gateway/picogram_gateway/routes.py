# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface, version 1: encode, decode, inspect, describe, reference, models. See also ``jobs`` and ``web``."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from picogram.bitstream import MEDIA_TYPE
from picogram.images import DEFAULT_LIMITS, MEDIA_TYPES
from picogram.semantics.description import MAX_CAPTION_CHARACTERS
from picogram_gateway import openapi
from picogram_gateway.answers import worker_view
from picogram_gateway.exchange import dispatcher_of, exchange, order_for_file, order_for_image
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.problems import ProblemError
from picogram_gateway.requests import (
    DecodeQuery,
    DescribeQuery,
    EncodeQuery,
    JobHeadersDep,
    ReferenceQuery,
    is_image,
    is_picogram,
    negotiate,
    read_body,
)
from picogram_gateway.workers import Backend


def _each_once(request: Request) -> None:
    """Of two values for one argument neither is more meant than the other: a 422 problem."""
    counted = Counter(name for name, _ in request.query_params.multi_items())
    if twice := sorted(name for name, count in counted.items() if count > 1):
        raise ProblemError(422, "usage", "Invalid arguments", f"{twice[0][:40]} is given more than once")


router = APIRouter(dependencies=[Depends(_each_once)])


@router.post(
    "/v1/encode",
    summary="Image to .pico file",
    response_class=Response,
    openapi_extra=openapi.image_body(EncodeQuery),
    responses=openapi.success("The .pico file", MEDIA_TYPE, headers=openapi.ENCODE_HEADERS)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def encode(request: Request, query: Annotated[EncodeQuery, Query()], asked: JobHeadersDep) -> Response:
    """Send the image as the raw body, or as the form field `image`; arguments may be form fields as well."""
    body = await read_body(request, "image", is_image)
    options = query.joined(body.fields).options()
    return await exchange(request, asked, await order_for_image("encode", body.payload, **options))


@router.post(
    "/v1/decode",
    summary=".pico file to image",
    response_class=Response,
    openapi_extra=openapi.picogram_body(DecodeQuery),
    responses=openapi.success("The image, partly imagined", *MEDIA_TYPES, headers=openapi.DECODE_HEADERS)
    | openapi.problems(406, *openapi.JOB_STATUSES),
)
async def decode(request: Request, query: Annotated[DecodeQuery, Query()], asked: JobHeadersDep) -> Response:
    """Send the file as the raw body, or as the form field `file`; arguments may be form fields as well. `Accept` chooses
    the image type.

    What the file does not hold, the decoder imagines: do not take details for evidence. Words that cannot be read are
    left out with a warning, and the picture comes all the same.
    """
    media_type = negotiate(",".join(request.headers.getlist("accept")), list(MEDIA_TYPES))
    body = await read_body(request, "file", is_picogram)
    options = query.joined(body.fields).options()
    order = await order_for_file("decode", body.payload, media_type=media_type, **options)
    return await exchange(request, asked, order)


@router.post(
    "/v1/inspect",
    summary="What a .pico file says about itself",
    response_class=Response,
    openapi_extra=openapi.picogram_body(),
    responses=openapi.success("Header, sections and words", example=openapi.INSPECT_EXAMPLE)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def inspect(request: Request, asked: JobHeadersDep) -> Response:
    """Reads the header and the words, where there are any; no picture is drawn."""
    data = (await read_body(request, "file", is_picogram)).payload
    return await exchange(request, asked, await order_for_file("inspect", data))


@router.post(
    "/v1/describe",
    summary="What an image shows, in words",
    response_class=Response,
    openapi_extra=openapi.image_body(),
    responses=openapi.success("Caption and objects", example=openapi.DESCRIBE_EXAMPLE)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def describe(
    request: Request, query: Annotated[DescribeQuery, Query()], asked: JobHeadersDep
) -> Response:
    """Send the image as the raw body, or as the form field `image`; the captioner may err."""
    image = (await read_body(request, "image", is_image)).payload
    return await exchange(request, asked, await order_for_image("describe", image, **query.model_dump()))


@router.post(
    "/v1/reference",
    summary="Image to a classical codec's file, for comparison",
    response_class=Response,
    openapi_extra=openapi.image_body(),
    responses=openapi.success(
        "The largest file in the budget",
        "image/avif",
        "image/webp",
        "image/jpeg",
        headers=openapi.REFERENCE_HEADERS,
    )
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def reference(
    request: Request, query: Annotated[ReferenceQuery, Query()], asked: JobHeadersDep
) -> Response:
    """Send the image as the raw body, or as the form field `image`. The file's picture may be smaller than what was
    sent, where that looks better in as many bytes: `X-Picogram-Width` and `-Height` say what to stretch it to.
    """
    image = (await read_body(request, "image", is_image)).payload
    options = query.model_dump(by_alias=True)
    return await exchange(request, asked, await order_for_image("reference", image, **options))


@router.get(
    "/v1/models",
    summary="Profiles, models, limits and workers",
    responses=openapi.json_success("What this server can do", openapi.MODELS_EXAMPLE)
    | openapi.problems(401, 429, 500, 503),
)
async def models(request: Request) -> dict[str, Any]:
    """The manifests of the models, with their hashes and licences; those for words have to be pulled."""
    settings: GatewaySettings = request.app.state.settings
    backend: Backend = request.app.state.backend
    limits = {
        "max_body_bytes": settings.max_body_bytes,
        "max_pixels": DEFAULT_LIMITS.max_pixels,
        "max_caption_characters": MAX_CAPTION_CHARACTERS,
        "job_timeout_seconds": settings.job_timeout_seconds,
        "result_ttl_seconds": settings.result_ttl_seconds,
    }
    catalogue = await asyncio.to_thread(backend.catalogue)  # files may have to be hashed
    workers = [worker_view(worker) for worker in await dispatcher_of(request).broker.workers()]
    return {**catalogue, "limits": limits, "media_types": list(MEDIA_TYPES), "workers": workers}
