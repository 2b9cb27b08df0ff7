# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What OpenAPI is told beyond the code: bodies that routes read themselves, examples, and every problem."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from picogram_gateway.bodies import PICOGRAM
from picogram_gateway.problems import BASE, MEDIA_TYPE, Problem

Schema = dict[str, Any]
_BINARY: Schema = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/avif", "image/tiff", "image/bmp", "image/gif")

_PROBLEMS: dict[int, list[tuple[str, str, str]]] = {
    400: [("empty-body", "Empty body", "the request carries no data")],
    406: [("not-acceptable", "Not acceptable", "cannot answer with 'text/html'; choose from image/png, …")],
    413: [
        ("body-too-large", "Request body too large", "the request body is larger than 67108864 bytes"),
        ("image-too-large", "Image too large", "the image has 48000000 pixels, 40000000 are allowed"),
        ("limit-exceeded", "Limit exceeded", "the file claims 4294836225 pixels"),
    ],
    415: [
        ("unsupported-media-type", "Unsupported media type", "application/json is not accepted here"),
        ("unsupported-image", "Unsupported image", "animated images are not supported"),
        ("not-a-picogram", "Not a picogram", "the file does not start with the magic of a .pico file"),
    ],
    422: [
        ("usage", "Invalid arguments", "give one of bytes, bpp and quality"),
        ("budget-too-small", "Byte budget too small", "the smallest file of this picture has 61 bytes"),
        ("unreadable-image", "Unreadable image", "the image is damaged"),
        ("corrupt-bitstream", "Corrupt bitstream", "the checksum does not match"),
        ("unsupported-version", "Unsupported bitstream version", "the file was written by a newer Picogram"),
        ("unsupported-profile", "Unsupported profile", "this decoder has no such profile"),
        ("unknown-model", "Unknown model", "the file needs a model that is not installed"),
    ],
    500: [("internal", "Internal error", "an unexpected error")],
    503: [
        ("queue-full", "Queue full", "64 jobs are waiting already"),
        (
            "model-missing",
            "Model missing",
            "features-1.safetensors is missing: run `picogram models pull features`",
        ),
        ("not-ready", "Not ready", "the models are not loaded yet"),
    ],
    504: [("job-timeout", "Deadline passed", "the deadline passed before the job was done")],
}

_MASK = ["........"] * 4 + ["..####.."] * 3 + ["........"]
INSPECT_EXAMPLE: Schema = {
    "version": 1,
    "profile": "stc",
    "width": 512,
    "height": 512,
    "downscale": 1,
    "model": 1,
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
            "coder": "latent-1",
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
DESCRIBE_EXAMPLE: Schema = {
    "caption": "A wet dog runs over a meadow.",
    "objects": [{"name": "dog", "detail": "a brown dog with wet fur", "mask": _MASK}],
}
MODELS_EXAMPLE: Schema = {
    "profiles": ["base", "stc"],
    "models": [{"id": 1, "file": "latent-1.safetensors", "sha256": "9f86d081…"}],
    "text_models": [
        {"id": 1, "kind": "text", "file": "text-lm-1.safetensors", "sha256": "2442b1d7…", "state": "pulled"}
    ],
    "limits": {
        "max_body_bytes": 67108864,
        "max_pixels": 40000000,
        "max_caption_characters": 10000,
        "job_timeout_seconds": 120.0,
    },
    "media_types": ["image/png", "image/webp", "image/avif", "image/jpeg"],
}
_WORDS = (
    ("X-Picogram-Caption", "The caption, percent-encoded UTF-8, cut after 4,096 bytes", "string"),
    ("X-Picogram-Warning", "What was left out, and why; one header per warning", "string"),
)
_TIMING = (("Server-Timing", "Milliseconds in queues and running", "string"),)


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
    *_WORDS,
    *_TIMING,
)
DECODE_HEADERS = _headers(
    ("X-Picogram-Width", "Pixels", "integer"),
    ("X-Picogram-Height", "Pixels", "integer"),
    *_WORDS,
    *_TIMING,
)


def problems(*statuses: int) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that may fail with these statuses."""
    return {status: _response(status) for status in statuses}


def success(description: str, *media_types: str, **members: Any) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that answers with bytes of one of these types."""
    content = dict.fromkeys(media_types, _BINARY)
    return {200: {"description": description, "content": content, **members}}


def json_success(description: str, example: Schema) -> dict[int | str, Schema]:
    """The ``responses=`` of a route that answers with JSON."""
    return {200: {"description": description, "content": {"application/json": {"example": example}}}}


def image_body(arguments: type[BaseModel] | None = None) -> Schema:
    """The ``openapi_extra=`` of a route that takes an image, and perhaps arguments as form fields."""
    fields = arguments.model_json_schema()["properties"] if arguments else {}
    return _body((*_IMAGES, "application/octet-stream"), "image", fields)


def picogram_body() -> Schema:
    """The ``openapi_extra=`` of a route that takes a .pico file."""
    return _body((PICOGRAM, "application/octet-stream"), "file")


def install(app: FastAPI) -> None:
    """Add the problem schema, which only hand-written responses refer to."""

    def openapi() -> Schema:
        if not app.openapi_schema:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = (
                Problem.model_json_schema()
            )
            app.openapi_schema = schema
        return app.openapi_schema

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
    if status == 503:
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def _body(media_types: tuple[str, ...], file: str, fields: Schema | None = None) -> Schema:
    properties = {file: _BINARY["schema"], **(fields or {})}
    form = {"type": "object", "required": [file], "properties": properties}
    content: Schema = {**dict.fromkeys(media_types, _BINARY), "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
