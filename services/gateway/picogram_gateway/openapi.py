# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What OpenAPI is told beyond the code: bodies that routes read themselves, answers, keys, and every problem."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from picogram.images import MEDIA_TYPES
from picogram_gateway.auth import is_open
from picogram_gateway.bodies import PICOGRAM
from picogram_gateway.openapi_examples import EVENTS, PROBLEMS, RETRIED, Schema
from picogram_gateway.problems import BASE, MEDIA_TYPE, Problem

_BINARY: Schema = {"schema": {"type": "string", "format": "binary"}}
_KEYS: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/avif", "image/tiff", "image/bmp", "image/gif")

_WORDS = (
    ("X-Picogram-Caption", "The caption, percent-encoded UTF-8, cut after 4,096 bytes", "string"),
    ("X-Picogram-Warning", "What was left out, and why; one header per warning", "string"),
)
_TIMING = (("Server-Timing", "Milliseconds in queues and running", "string"),)


JOB_STATUSES: Final = (400, 401, 408, 410, 413, 415, 422, 429, 500, 503, 504)
"""What a route that starts a job may answer in trouble."""


def _headers(*headers: tuple[str, str, str]) -> Schema:
    return {name: {"description": text, "schema": {"type": kind}} for name, text, kind in headers}


ENCODE_HEADERS = _headers(
    ("ETag", "SHA-256 of the file", "string"),
    ("X-Picogram-Bytes", "Size of the file: the sum of the next four", "integer"),
    ("X-Picogram-Header-Bytes", "Header and checksums", "integer"),
    ("X-Picogram-Latent-Bytes", "The picture's section", "integer"),
    ("X-Picogram-Caption-Bytes", "The caption's section, 0 without", "integer"),
    ("X-Picogram-Objects-Bytes", "The objects' section, 0 without", "integer"),
    ("X-Picogram-Bpp", "Bits per pixel, everything counted", "number"),
    ("X-Picogram-Width", "Pixels", "integer"),
    ("X-Picogram-Height", "Pixels", "integer"),
    (
        "X-Picogram-Heard",
        "The caption that shaped the file and is not in it, written as the caption is",
        "string",
    ),
    *_WORDS,
    *_TIMING,
)
DECODE_HEADERS = _headers(
    ("X-Picogram-Width", "Pixels", "integer"),
    ("X-Picogram-Height", "Pixels", "integer"),
    ("X-Picogram-Steps", "Steps of the last pass; 0: nothing was imagined", "integer"),
    ("X-Picogram-Seed", "Of what was imagined", "integer"),
    *_WORDS,
    *_TIMING,
)
REFERENCE_HEADERS = _headers(
    ("X-Picogram-Bytes", "Size of the file", "integer"),
    ("X-Picogram-Bpp", "Bits per pixel of the picture that was sent", "number"),
    ("X-Picogram-Width", "Pixels of the picture that was sent", "integer"),
    ("X-Picogram-Height", "Pixels of the picture that was sent", "integer"),
    *_TIMING,
)
_JOB_HEADER = _headers(("X-Picogram-Job", "Id of the job", "string"))
_ACCEPTED_HEADERS = _headers(
    ("Location", "Path of the job", "string"),
    ("Preference-Applied", "What of `Prefer` was followed", "string"),
    ("Retry-After", "Seconds", "integer"),
)


def problems(*statuses: int) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that may fail with these statuses."""
    return {status: _response(status) for status in statuses}


def success(
    description: str, *media_types: str, headers: Schema | None = None, example: Schema | None = None
) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that starts a job: bytes of one of these types or JSON, or 202 with the job."""
    content = {"application/json": {"example": example}} if example else dict.fromkeys(media_types, _BINARY)
    return {
        200: {"description": description, "content": content, "headers": (headers or {}) | _JOB_HEADER},
        202: {
            "description": "The job, where `Prefer` allows not to wait",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobView"}}},
            "headers": _ACCEPTED_HEADERS | _JOB_HEADER,
        },
    }


def json_success(description: str, example: Schema) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that answers with JSON at once."""
    return {200: {"description": description, "content": {"application/json": {"example": example}}}}


def job_result() -> dict[int | str, Schema]:
    """The ``responses=`` of a route that answers with whatever came out of a job."""
    content = {PICOGRAM: _BINARY, **dict.fromkeys(MEDIA_TYPES, _BINARY), "application/json": {}}
    return {200: {"description": "As without `Prefer`", "content": content, "headers": _JOB_HEADER}}


def event_stream() -> dict[int | str, Schema]:
    """The ``responses=`` of a route that answers with server-sent events."""
    content = {"text/event-stream": {"schema": {"type": "string"}, "example": EVENTS}}
    return {200: {"description": "Events, as they come", "content": content}}


def image_body(arguments: type[BaseModel] | None = None) -> Schema:
    """The ``openapi_extra=`` of a route that takes an image, and perhaps arguments as form fields."""
    fields = arguments.model_json_schema()["properties"] if arguments else {}
    return _body((*_IMAGES, "application/octet-stream"), "image", fields)


def picogram_body(arguments: type[BaseModel] | None = None) -> Schema:
    """The ``openapi_extra=`` of a route that takes a .pico file, and perhaps arguments as form fields."""
    fields = arguments.model_json_schema()["properties"] if arguments else {}
    return _body((PICOGRAM, "application/octet-stream"), "file", fields)


def install(app: FastAPI) -> None:
    """Add what only hand-written responses refer to, and the keys."""

    def openapi() -> Schema:
        if not app.openapi_schema:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {}).setdefault("Problem", Problem.model_json_schema())
            components["securitySchemes"] = _KEYS
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    operation["security"] = [] if is_open(path) else [{}, *({name: []} for name in _KEYS)]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _response(status: int) -> Schema:
    examples = {
        slug: {"value": {"type": BASE + slug, "title": title, "status": status, "detail": detail}}
        for slug, title, detail in PROBLEMS[status]
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    description = ", ".join(title for _, title, _ in PROBLEMS[status])
    response: Schema = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if status in RETRIED:
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def _body(media_types: tuple[str, ...], file: str, fields: Schema | None = None) -> Schema:
    properties = {file: _BINARY["schema"], **(fields or {})}
    form = {"type": "object", "required": [file], "properties": properties}
    content: Schema = {**dict.fromkeys(media_types, _BINARY), "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
