# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface, version 1: encode, decode, inspect, describe, reference, models. See also ``jobs`` and ``probes``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from picogram.diffusion.stages import MAX_GUIDANCE, MAX_SEED
from picogram.errors import UnsupportedProfile, UsageError
from picogram.images import DEFAULT_LIMITS, MEDIA_TYPES
from picogram.jobs.words import MAX_JSON_CHARACTERS, read_json
from picogram.profiles.drawing import MOST_STEPS
from picogram.profiles.recipes import MAX_EFFORT, MAX_FOCUS_CHARACTERS
from picogram.request import BPP_RANGE, MOST_BYTES, MOST_QUALITY, EncodeOptions
from picogram.semantics.description import MAX_CAPTION_CHARACTERS
from picogram_gateway import openapi, openapi_examples
from picogram_gateway.backends import Backend
from picogram_gateway.bodies import PICOGRAM, is_image, is_picogram, read_body
from picogram_gateway.exchange import dispatcher_of, exchange
from picogram_gateway.negotiation import negotiate
from picogram_gateway.orders import order_for_file, order_for_image
from picogram_gateway.problems import ProblemError
from picogram_gateway.settings import GatewaySettings
from picogram_gateway.views import worker_view
from picogram_gateway.wishes import Asked


def _each_once(request: Request) -> None:
    """Of two values for one argument neither is more meant than the other: a 422 problem."""
    counted = Counter(name for name, _ in request.query_params.multi_items())
    if twice := sorted(name for name, count in counted.items() if count > 1):
        raise ProblemError(422, "usage", "Invalid arguments", f"{twice[0][:40]} is given more than once")


router = APIRouter(dependencies=[Depends(_each_once)])


class Arguments(BaseModel):
    """What may come in the query or as fields of the form that holds the body."""

    model_config = ConfigDict(extra="forbid")

    def joined(self, fields: Mapping[str, str]) -> Self:
        """These arguments and those of a form; invalid or doubled ones are 422 problems."""
        given = self.model_dump(by_alias=True, exclude_unset=True)
        if twice := sorted(given.keys() & fields.keys()):
            detail = f"{twice[0]} is in the query and in the form"
            raise ProblemError(422, "usage", "Invalid arguments", detail)
        try:
            return type(self).model_validate({**given, **fields})
        except ValidationError as error:
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            ) from error


def _bounds(low: float, high: float) -> dict[str, JsonValue]:
    """For the description alone: ``EncodeOptions`` checks them, with the words that the library and the command use."""
    return {"minimum": low, "maximum": high}


class EncodeQuery(Arguments):
    """How small, or how good (at most one of ``bytes``, ``bpp`` and ``quality``), with which words, and what matters
    most (at most one of ``focus`` and ``focus_mask``)."""

    _plain: dict[str, Any] = PrivateAttr(default_factory=dict)

    budget: int | None = Field(
        None,
        alias="bytes",
        description="Largest size of the file",
        examples=[800],
        json_schema_extra=_bounds(1, MOST_BYTES),
    )
    bpp: float | None = Field(
        None,
        description="Largest size in bits per pixel",
        examples=[0.04],
        json_schema_extra=_bounds(*BPP_RANGE),
    )
    quality: float | None = Field(
        None,
        description="Quality instead of a size",
        examples=[35],
        json_schema_extra=_bounds(0, MOST_QUALITY),
    )
    profile: Literal["base", "stc", "misc", "taco", "sedic"] = Field(
        "base",
        description="`base`: a picture only; `stc`: with a caption; `misc`, `sedic`: with a caption and objects; "
        "`taco`: a picture only; a caption guides the encoder and is not in the file",
    )
    caption: str | None = Field(
        None,
        max_length=MAX_CAPTION_CHARACTERS,
        description="The caption, instead of the captioner's; empty with `taco`: the encoder listens to none",
        examples=["A lighthouse above a rocky shore."],
    )
    objects: str | None = Field(
        None,
        max_length=MAX_JSON_CHARACTERS,
        description="JSON: the objects for `misc` (up to 3, masks of side 8) or `sedic` (up to 8, masks of side 16, 32 "
        "or 64), as `/v1/describe` lists them, instead of the captioner's; `[]`: none",
        examples=[openapi_examples.OBJECTS],
    )
    focus: str | None = Field(
        None,
        max_length=MAX_FOCUS_CHARACTERS,
        description="Words for what matters most, in any profile: more of the bytes go there. They are not in the file",
        examples=["the red boat"],
    )
    focus_mask: str | None = Field(
        None,
        max_length=MAX_JSON_CHARACTERS,
        description="JSON: where it matters most, instead of words: the rows of a mask as objects have it, side 8, 16, "
        "32 or 64, laid over the whole picture",
        examples=[openapi_examples.FOCUS_MASK],
    )

    effort: int = Field(
        0,
        json_schema_extra=_bounds(0, MAX_EFFORT),
        description="1, 2: search longer for a better file of the same size; the format stays the same",
        examples=[1],
    )

    @model_validator(mode="after")
    def _checked(self) -> Self:
        try:
            self._plain = self._asked().plain()
        except (UsageError, UnsupportedProfile) as error:
            raise ValueError(str(error)) from error
        return self

    def options(self) -> dict[str, Any]:
        """Of the job: those of ``EncodeOptions.plain``."""
        return self._plain

    def _asked(self) -> EncodeOptions:
        given = self.model_dump(by_alias=True)
        for name, what in (("objects", "the objects"), ("focus_mask", "the rows of the focus mask")):
            if given[name] is not None:
                given[name] = read_json(given[name], what)
        return EncodeOptions.of(given)


class DecodeQuery(Arguments):
    """How the picture is drawn; the same file and arguments give the same picture."""

    steps: int | None = Field(
        None,
        ge=0,
        le=MOST_STEPS,
        description="Steps of the last pass; 0: the base picture, nothing imagined. Default: the profile's",
        examples=[2],
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=MAX_GUIDANCE,
        allow_inf_nan=False,
        description="How closely words are followed, 1: no more than they come. Default: the profile's",
        examples=[2.0],
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Of what is imagined", examples=[7])


class DescribeQuery(BaseModel):
    """How fine."""

    model_config = ConfigDict(extra="forbid")

    mask_side: Literal[8, 16] = Field(
        8, description="Rows and columns of the objects' masks: 8 suits `misc`, 16 `sedic`"
    )

    @field_validator("mask_side", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """Queries are text, which no literal number equals."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class ReferenceQuery(BaseModel):
    """Which codec, and how small."""

    model_config = ConfigDict(extra="forbid")

    codec: Literal["avif", "webp", "jpeg"] = Field(description="The codec to compare with", examples=["avif"])
    budget: int = Field(alias="bytes", ge=1, description="Largest size of the file", examples=[800])


@router.post(
    "/v1/encode",
    summary="Image to .pico file",
    response_class=Response,
    openapi_extra=openapi.image_body(EncodeQuery),
    responses=openapi.success("The .pico file", PICOGRAM, headers=openapi.ENCODE_HEADERS)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def encode(request: Request, query: Annotated[EncodeQuery, Query()], asked: Asked) -> Response:
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
async def decode(request: Request, query: Annotated[DecodeQuery, Query()], asked: Asked) -> Response:
    """Send the file as the raw body, or as the form field `file`; arguments may be form fields as well. `Accept` chooses
    the image type.

    What the file does not hold, the decoder imagines: do not take details for evidence. Words that cannot be read are
    left out with a warning, and the picture comes all the same.
    """
    media_type = negotiate(",".join(request.headers.getlist("accept")), list(MEDIA_TYPES))
    body = await read_body(request, "file", is_picogram)
    options = query.joined(body.fields).model_dump()
    order = await order_for_file("decode", body.payload, media_type=media_type, **options)
    return await exchange(request, asked, order)


@router.post(
    "/v1/inspect",
    summary="What a .pico file says about itself",
    response_class=Response,
    openapi_extra=openapi.picogram_body(),
    responses=openapi.success("Header, sections and words", example=openapi_examples.INSPECT)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def inspect(request: Request, asked: Asked) -> Response:
    """Reads the header and the words, where there are any; no picture is drawn."""
    data = (await read_body(request, "file", is_picogram)).payload
    return await exchange(request, asked, await order_for_file("inspect", data))


@router.post(
    "/v1/describe",
    summary="What an image shows, in words",
    response_class=Response,
    openapi_extra=openapi.image_body(),
    responses=openapi.success("Caption and objects", example=openapi_examples.DESCRIBE)
    | openapi.problems(*openapi.JOB_STATUSES),
)
async def describe(request: Request, query: Annotated[DescribeQuery, Query()], asked: Asked) -> Response:
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
async def reference(request: Request, query: Annotated[ReferenceQuery, Query()], asked: Asked) -> Response:
    """Send the image as the raw body, or as the form field `image`. The file's picture may be smaller than what was
    sent, where that looks better in as many bytes: `X-Picogram-Width` and `-Height` say what to stretch it to.
    """
    image = (await read_body(request, "image", is_image)).payload
    options = query.model_dump(by_alias=True)
    return await exchange(request, asked, await order_for_image("reference", image, **options))


@router.get(
    "/v1/models",
    summary="Profiles, models, limits and workers",
    responses=openapi.json_success("What this server can do", openapi_examples.MODELS)
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
