# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The payload of a request: its raw body, or one file of a multipart form."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.datastructures import UploadFile

from picogram_gateway.problems import ProblemError

PICOGRAM: str = "application/vnd.picogram"
_OPAQUE = ("", "application/octet-stream")


def is_image(media_type: str) -> bool:
    """What an image may be labelled as; what it is shows when it is read."""
    return media_type in _OPAQUE or media_type.startswith("image/")


def is_picogram(media_type: str) -> bool:
    """What a .pico file may be labelled as."""
    return media_type in (*_OPAQUE, PICOGRAM)


async def read_payload(request: Request, field: str, accepts: Callable[[str], bool]) -> bytes:
    """The bytes to work on. Problems: 400 without data, 415 for a wrong label, 422 without the field."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("send the body without a Content-Encoding")
    if media_type == "multipart/form-data":
        payload = await _read_form(request, field)
    elif accepts(media_type):
        payload = await request.body()
    elif media_type == "application/x-www-form-urlencoded":
        raise _unsupported("curl needs -H 'Content-Type: application/octet-stream' beside --data-binary")
    else:
        raise _unsupported(f"{media_type} is not accepted here")
    if not payload:
        raise ProblemError(400, "empty-body", "Empty body", "the request carries no data")
    return payload


async def _read_form(request: Request, field: str) -> bytes:
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get(field)
        if not isinstance(part, UploadFile):
            raise ProblemError(422, "usage", "Invalid arguments", f"the form needs one file named {field!r}")
        return await part.read()


def _unsupported(detail: str) -> ProblemError:
    return ProblemError(415, "unsupported-media-type", "Unsupported media type", detail)
