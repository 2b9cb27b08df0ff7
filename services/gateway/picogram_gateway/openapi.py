# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What OpenAPI is told beyond the code: bodies that routes read themselves, answers, keys, every problem, examples."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from picogram.bitstream import MEDIA_TYPE as PICOGRAM
from picogram.images import MEDIA_TYPES
from picogram_gateway.edges import on_server
from picogram_gateway.guards import is_open
from picogram_gateway.problems import BASE, MEDIA_TYPE, Problem

Schema = dict[str, Any]

_PROBLEMS: Final[dict[int, list[tuple[str, str, str]]]] = {
    400: [
        ("empty-body", "Empty body", "the request carries no data"),
        ("bad-request", "Bad request", "Missing boundary in multipart."),
    ],
    401: [("unauthorized", "Unauthorized", "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`")],
    404: [("job-unknown", "Unknown job", "there is no such job, or its result has expired")],
    406: [("not-acceptable", "Not acceptable", "cannot answer with 'text/html'; choose from image/png, …")],
    408: [("body-timeout", "Request body too slow", "the request body took longer than 30 seconds")],
    409: [("job-not-finished", "Job not finished", "the job is running; its events tell when it is done")],
    410: [("job-canceled", "Job canceled", "the job was canceled")],
    413: [
        ("body-too-large", "Request body too large", "the request body is larger than 67108864 bytes"),
        ("image-too-large", "Image too large", "the image has 48000000 pixels, 40000000 are allowed"),
        ("limit-exceeded", "Limit exceeded", "the file claims 4294836225 pixels"),
        ("out-of-memory", "Out of memory", "the job does not fit this worker's memory, not even alone"),
    ],
    415: [
        ("unsupported-media-type", "Unsupported media type", "application/json is not accepted here"),
        ("unsupported-image", "Unsupported image", "animated images are not supported"),
        ("not-a-picogram", "Not a picogram", "the file does not start with the magic of a .pico file"),
    ],
    422: [
        ("usage", "Invalid arguments", "give at most one of bytes, bpp and quality"),
        ("budget-too-small", "Byte budget too small", "the smallest file of this picture has 61 bytes"),
        ("unreadable-image", "Unreadable image", "the image is damaged"),
        ("corrupt-bitstream", "Corrupt bitstream", "the checksum does not match"),
        ("unsupported-version", "Unsupported bitstream version", "the file was written by a newer Picogram"),
        ("unsupported-profile", "Unsupported profile", "this decoder has no such profile"),
        ("unknown-model", "Unknown model", "the file needs a model that is not installed"),
        (
            "idempotency-conflict",
            "Idempotency key already used",
            "this idempotency key came with another request before",
        ),
    ],
    429: [("rate-limited", "Too many requests", "more than 600 per 1 minute; try again in 12 s")],
    500: [
        ("internal", "Internal error", "an unexpected error"),
        ("job-abandoned", "Job abandoned", "3 workers died of this job"),
        ("self-check-failed", "Self-check failed", "the fresh file does not decode to what was coded"),
    ],
    503: [
        ("queue-full", "Queue full", "64 jobs are waiting already"),
        ("overloaded", "Overloaded", "1000 requests are under way already"),
        ("broker-unavailable", "Job store unavailable", "the job store cannot be reached"),
        (
            "model-missing",
            "Model missing",
            "features-1.safetensors is missing: run `picogram models pull features`",
        ),
        ("not-ready", "Not ready", "the models are not loaded yet"),
    ],
    504: [("job-timeout", "Deadline passed", "the deadline passed before the job was done")],
}
_RETRIED: Final = (409, 429, 503)
"""Statuses that come with Retry-After."""

_MASK = ["........"] * 4 + ["..####.."] * 3 + ["........"]
INSPECT_EXAMPLE: Final[Schema] = {
    "version": 1,
    "profile": "stc",
    "width": 512,
    "height": 512,
    "downscale": 1,
    "model": 2,
    "rate": 20,
    "file_bytes": 683,
    "bpp": 0.02084,
    "header_bytes": 12,
    "sections": {"latent": 646, "caption": 25},
    "details": {
        "latent": {
            "bytes": 646,
            "bits": 5168,
            "bpp": 0.01971,
            "coder": "latent-2",
            "text": None,
            "problem": None,
        },
        "caption": {
            "bytes": 25,
            "bits": 200,
            "bpp": 0.00076,
            "coder": "exact-lm/short",
            "text": "A wet dog runs over a meadow.",
            "problem": None,
        },
    },
    "checks": {"picture": "ok", "words": "ok"},
    "warnings": [],
    "description": {"caption": "A wet dog runs over a meadow.", "objects": []},
}
DESCRIBE_EXAMPLE: Final[Schema] = {
    "caption": "A wet dog runs over a meadow.",
    "objects": [{"name": "dog", "detail": "a brown dog with wet fur", "mask": _MASK}],
}
OBJECTS_EXAMPLE: Final = json.dumps([{"name": "dog", "detail": "wet", "mask": _MASK}])
FOCUS_MASK_EXAMPLE: Final = json.dumps(_MASK)
MODELS_EXAMPLE: Final[Schema] = {
    "profiles": ["base", "stc", "misc", "taco", "sedic"],
    "profile_details": [
        {
            "name": "stc",
            "label": "Picture and caption",
            "explanation": "with a caption",
            "sections": ["caption"],
            "max_objects": 0,
            "guided": False,
            "default": False,
        }
    ],
    "models": [{"id": 2, "file": "latent-2.safetensors", "sha256": "2f694144…"}],
    "drawing_models": [{"id": 2, "file": "diffusion-2.safetensors", "sha256": "001a5882…"}],
    "text_models": [
        {"id": 1, "kind": "text", "file": "text-lm-1.safetensors", "sha256": "2442b1d7…", "state": "pulled"}
    ],
    "limits": {
        "max_body_bytes": 67108864,
        "max_pixels": 40000000,
        "max_caption_characters": 10000,
        "job_timeout_seconds": 120.0,
        "result_ttl_seconds": 600.0,
    },
    "media_types": ["image/png", "image/webp", "image/avif", "image/jpeg"],
    "workers": [
        {
            "name": "encoder-7d9f-x2k4q",
            "step": "encoder",
            "version": "0.2.0",
            "started": "2026-03-01T12:00:00.000Z",
            "facts": {},
        }
    ],
}
_EVENTS: Final = """id: 1
event: queued
data: {"at": 1772366400.0, "step": "encoder"}

id: 2
event: running
data: {"at": 1772366400.2, "step": "encoder"}

id: 3
event: progress
data: {"at": 1772366400.9, "step": "encoder", "fraction": 0.5}

id: 4
event: done
data: {"at": 1772366401.4}

"""


_BINARY: Schema = {"schema": {"type": "string", "format": "binary"}}
_KEYS: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/avif", "image/tiff", "image/bmp", "image/gif")

_COMMON = (
    (
        "Link",
        "Where words belong to the result and the job is kept: `describedby` leads to all of it",
        "string",
    ),
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
    *_COMMON,
    *_TIMING,
)
DECODE_HEADERS = _headers(
    ("X-Picogram-Width", "Pixels", "integer"),
    ("X-Picogram-Height", "Pixels", "integer"),
    ("X-Picogram-Stages", "Passes over the picture and its objects; 0: nothing was imagined", "integer"),
    ("X-Picogram-Steps", "Steps of the last pass", "integer"),
    ("X-Picogram-Guidance", "Of the last pass", "number"),
    ("X-Picogram-Seed", "Of what was imagined", "integer"),
    ("X-Picogram-Model", "Who imagined it", "string"),
    *_COMMON,
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
    content = {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}
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
        prefix = on_server("")
        return app.openapi_schema | ({"servers": [{"url": prefix}]} if prefix else {})

    app.openapi = openapi  # type: ignore[method-assign]


def _response(status: int) -> Schema:
    examples = {
        slug: {"value": {"type": BASE + slug, "title": title, "status": status, "detail": detail}}
        for slug, title, detail in _PROBLEMS[status]
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    description = ", ".join(title for _, title, _ in _PROBLEMS[status])
    response: Schema = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if status in _RETRIED:
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def _body(media_types: tuple[str, ...], file: str, fields: Schema | None = None) -> Schema:
    properties = {file: _BINARY["schema"], **(fields or {})}
    form = {"type": "object", "required": [file], "properties": properties}
    content: Schema = {**dict.fromkeys(media_types, _BINARY), "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
