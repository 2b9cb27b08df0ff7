# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The payload of a request: its raw body, or one file of a multipart form, whose other fields are arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from picogram_gateway.problems import ProblemError

PICOGRAM: str = "application/vnd.picogram"
_OPAQUE = ("", "application/octet-stream")
_MAX_FIELDS: Final = 8
_MAX_FIELD_BYTES: Final = 128 * 1024


@dataclass(frozen=True)
class Body:
    """The bytes to work on, and the text fields of a form."""

    payload: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


def is_image(media_type: str) -> bool:
    """What an image may be labelled as; what it is shows when it is read."""
    return media_type in _OPAQUE or media_type.startswith("image/")


def is_picogram(media_type: str) -> bool:
    """What a .pico file may be labelled as."""
    return media_type in (*_OPAQUE, PICOGRAM)


async def read_body(request: Request, name: str, accepts: Callable[[str], bool]) -> Body:
    """The body, or what a form holds in the field ``name`` and in others.

    Problems: 400 without data, 415 for a wrong label, 422 without the field or with one twice.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("send the body without a Content-Encoding")
    if media_type == "multipart/form-data":
        body = await _read_form(request, name)
    elif accepts(media_type):
        body = Body(await request.body())
    elif media_type == "application/x-www-form-urlencoded":
        raise _unsupported("curl needs -H 'Content-Type: application/octet-stream' beside --data-binary")
    else:
        raise _unsupported(f"{media_type} is not accepted here")
    if not body.payload:
        raise ProblemError(400, "empty-body", "Empty body", "the request carries no data")
    return body


async def _read_form(request: Request, name: str) -> Body:
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    )
    parser.spool_max_size = request.app.state.settings.max_body_bytes  # there may be no disk to write to
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(400, "bad-request", "Bad request", error.message) from None
    try:
        return await _one_file(form, name)
    finally:
        await form.close()


async def _one_file(form: FormData, name: str) -> Body:
    part = form.get(name)
    if not isinstance(part, UploadFile):
        raise ProblemError(422, "usage", "Invalid arguments", f"the form needs one file named {name!r}")
    fields: dict[str, str] = {}
    for key, value in form.multi_items():
        if key in fields:
            raise ProblemError(422, "usage", "Invalid arguments", f"the form has {key!r} twice")
        if isinstance(value, str):
            fields[key] = value
    return Body(await part.read(), fields)


def _unsupported(detail: str) -> ProblemError:
    return ProblemError(415, "unsupported-media-type", "Unsupported media type", detail)
