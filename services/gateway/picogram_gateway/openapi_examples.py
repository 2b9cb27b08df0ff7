# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Examples in the description of the interface: every problem by its status, and answers."""

from __future__ import annotations

import json
from typing import Any, Final

Schema = dict[str, Any]

PROBLEMS: Final[dict[int, list[tuple[str, str, str]]]] = {
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
RETRIED: Final = (409, 429, 503)
"""Statuses that come with Retry-After."""

_MASK = ["........"] * 4 + ["..####.."] * 3 + ["........"]
INSPECT: Final[Schema] = {
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
DESCRIBE: Final[Schema] = {
    "caption": "A wet dog runs over a meadow.",
    "objects": [{"name": "dog", "detail": "a brown dog with wet fur", "mask": _MASK}],
}
OBJECTS: Final = json.dumps([{"name": "dog", "detail": "wet", "mask": _MASK}])
FOCUS_MASK: Final = json.dumps(_MASK)
MODELS: Final[Schema] = {
    "profiles": ["base", "stc", "misc", "taco", "sedic"],
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
EVENTS: Final = """id: 1
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
