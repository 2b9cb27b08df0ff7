# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Every error leaves as RFC 9457 problem+json; ``type`` ends in a slug that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from picogram.errors import PicogramError

MEDIA_TYPE: Final = "application/problem+json"
BASE: Final = "https://picogram.dev/problems/"

STATUS: Final[Mapping[str, int]] = {
    "usage": 422,
    "budget-too-small": 422,
    "image": 422,
    "unreadable-image": 422,
    "unsupported-image": 415,
    "image-too-large": 413,
    "bitstream": 422,
    "not-a-picogram": 415,
    "corrupt-bitstream": 422,
    "unsupported-version": 422,
    "unsupported-profile": 422,
    "unknown-model": 422,
    "limit-exceeded": 413,
    "model": 503,
    "model-missing": 503,
    "model-damaged": 503,
    "self-check-failed": 500,
    "job": 503,
    "queue-full": 503,
    "broker-unavailable": 503,
    "job-timeout": 504,
    "job-canceled": 410,
    "job-unknown": 404,
    "idempotency-conflict": 422,
    "out-of-memory": 413,
    "job-abandoned": 500,
    "internal": 500,
    "error": 500,
}
"""HTTP status by the slug of a PicogramError."""

STORE_RETRY_SECONDS: Final = 2
"""After which to ask again when the job store is away."""

_RAISED: Final = "Value error, "
"""What pydantic puts before the words of a ValueError."""
_SLUGS: Final = {404: "not-found", 405: "method-not-allowed", 406: "not-acceptable", 413: "body-too-large"}


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=[BASE + "unreadable-image"], description="Stable identifier of the problem.")
    title: str = Field(examples=["Unreadable image"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the image is damaged"], description="One line for a person.")
    instance: str | None = Field(None, examples=["urn:uuid:0193f5a2-6a3e-7c1d-9b7e-3f2d8c4a1b60"])


class ProblemError(HTTPException):
    """A problem of the HTTP layer, with a slug of its own; ``extra`` members join the body."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.slug, self.title, self.extra = slug, title, extra


def problem_response(
    scope: Scope,
    status: int,
    slug: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """The one way an error is written."""
    instance = scope.get("picogram.request_id")
    body = Problem(type=BASE + slug, title=title, status=status, detail=detail, instance=instance, **extra)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


async def refuse(scope: Scope, receive: Receive, send: Send, error: ProblemError) -> None:
    """Answer with a problem from within a middleware, before any route has the request."""
    response = problem_response(
        scope, error.status_code, error.slug, error.title, error.detail, error.headers, **error.extra
    )
    await response(scope, receive, send)


def problem_of(error: PicogramError) -> Problem:
    """How an error of a job is told where it is not the answer itself."""
    status = STATUS.get(error.slug, 500)
    return Problem(type=BASE + error.slug, title=error.title, status=status, detail=str(error), instance=None)


def not_ready(detail: str) -> ProblemError:
    """For probes."""
    headers = {"Retry-After": str(STORE_RETRY_SECONDS)}
    return ProblemError(503, "not-ready", "Not ready", detail, headers)


async def _picogram_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PicogramError)  # noqa: S101 - registered for nothing else
    status = STATUS.get(error.slug, 500)
    headers = {}
    if error.slug == "queue-full":
        headers["Retry-After"] = str(request.app.state.dispatcher.retry_after())
    elif error.slug == "broker-unavailable":
        headers["Retry-After"] = str(STORE_RETRY_SECONDS)
    return problem_response(request.scope, status, error.slug, error.title, str(error), headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    if isinstance(error, ProblemError):
        slug, title, extra = error.slug, error.title, error.extra
    else:
        title = HTTPStatus(error.status_code).phrase
        slug, extra = _SLUGS.get(error.status_code, title.lower().replace(" ", "-")), {}
    return problem_response(
        request.scope, error.status_code, slug, title, error.detail, error.headers, **extra
    )


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    found = [(_where(each["loc"]), each["msg"].removeprefix(_RAISED)) for each in error.errors()]
    errors = [{"where": where, "message": message} for where, message in found]
    detail = "; ".join(f"{where}: {message}" if "." in where else message for where, message in found)
    return problem_response(request.scope, 422, "usage", "Invalid arguments", detail, errors=errors)


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    detail = "an unexpected error; the server's log has the details under this instance"
    return problem_response(request.scope, 500, "internal", "Internal error", detail)


async def _client_gone(request: Request, error: Exception) -> JSONResponse:
    """For the log; nobody reads it."""
    detail = "the client closed the connection"
    return problem_response(request.scope, 499, "client-gone", "Client gone", detail)


def install(app: FastAPI) -> None:
    """Let the app answer every error as a problem."""
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(PicogramError, _picogram_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unexpected)
