# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a client and its server, beside what the library itself raises.

    PicogramError
    └── ServerError             any other answer that is not a success; ``slug`` is the server's
        ├── ConnectionFailed    no answer: refused, broken off, too slow
        ├── BadAnswer           an answer that this client cannot read, or that is larger than its limit
        ├── Unauthorized        no API key, or a wrong one
        ├── RateLimited         too many requests; ``retry_after`` says when to come again
        ├── BodyTooLarge        more bytes than the server takes
        ├── NotAcceptable       no image type of the server's was asked for
        ├── UnsupportedMediaType
        ├── NotReady            the server loads its models
        └── JobNotFinished      the result of a job was asked for too early

    answer, status >= 300 ── failure_of ──> ServerError ── as_raised ──> the same, or the library's error of that slug

A library error, such as BudgetTooSmall, has the ServerError that it was made of as its ``__cause__``.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import httpx2

from picogram import errors as library
from picogram.errors import PicogramError

PROBLEM: Final = "application/problem+json"


class ServerError(PicogramError):
    """The server said no.

    ``status`` is the HTTP status (0: there was no answer), ``problem`` the body as RFC 9457 has it (empty: none came),
    ``retry_after`` the seconds that the server asks to wait.
    """

    slug, title, exit_code = "server", "Server problem", 7

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        slug: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.problem, self.retry_after = status, dict(problem or {}), retry_after
        if slug:  # one that has no class here; others may say it, so it is this error's only
            vars(self)["slug"] = slug


class ConnectionFailed(ServerError):
    """``transient`` says whether another try may help."""

    slug, title = "connection-failed", "Connection failed"
    transient = True


class BadAnswer(ServerError):
    slug, title = "bad-answer", "Unreadable answer"


class Unauthorized(ServerError):
    slug, title = "unauthorized", "Unauthorized"


class RateLimited(ServerError):
    slug, title = "rate-limited", "Too many requests"


class BodyTooLarge(ServerError):
    slug, title = "body-too-large", "Body too large"


class NotAcceptable(ServerError):
    slug, title = "not-acceptable", "Not acceptable"


class UnsupportedMediaType(ServerError):
    slug, title = "unsupported-media-type", "Unsupported media type"


class NotReady(ServerError):
    slug, title = "not-ready", "Not ready"


class JobNotFinished(ServerError):
    slug, title = "job-not-finished", "Job not finished"


@dataclass(frozen=True)
class Answer:
    """What a server answered, read to its end; ``facts``: what its job says of it beyond the headers, ``notes``: what to
    warn of besides."""

    status: int
    headers: httpx2.Headers
    body: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def media_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises BadAnswer."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadAnswer("the answer is not JSON", status=self.status) from error
        if not isinstance(value, dict):
            raise BadAnswer("the answer is not a JSON object", status=self.status)
        return value


def failure_of(answer: Answer) -> ServerError | None:
    """Why the answer is no success; None if it is one."""
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    retry_after = _retry_after(answer.headers.get("retry-after", ""))
    if answer.media_type == PROBLEM:
        return failure_of_problem(answer.json(), answer.status, retry_after)
    phrase = _phrase(answer.status)
    message = f"the server answered {answer.status} {phrase}"
    if location := answer.headers.get("location"):
        message += f" and points to {location}"
    slug = phrase.lower().replace(" ", "-")
    return ServerError(message, status=answer.status, retry_after=retry_after, slug=slug)


def failure_of_problem(
    problem: Mapping[str, Any], status: int = 0, retry_after: float | None = None
) -> ServerError:
    """A problem document as an error, of the class of its slug where there is one here."""
    slug = str(problem.get("type", "")).rpartition("/")[2]
    status = status or int(problem.get("status", 0))
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    for cls in _subclasses(ServerError):
        if cls.slug == slug:
            return cls(detail, status=status, problem=problem, retry_after=retry_after)
    return ServerError(detail, status=status, problem=problem, retry_after=retry_after, slug=slug)


def as_raised(failure: ServerError) -> PicogramError:
    """The library's error of the same slug, which callers know already; else the failure itself."""
    cls = _library_errors().get(failure.slug)
    if cls is None:
        return failure
    error = cls(str(failure))
    error.__cause__ = failure
    return error


@cache
def _library_errors() -> Mapping[str, type[PicogramError]]:
    classes = (each for each in vars(library).values() if isinstance(each, type))
    return {each.slug: each for each in classes if issubclass(each, PicogramError)}


def _subclasses(cls: type[ServerError]) -> Iterator[type[ServerError]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown Status"


def _retry_after(value: str) -> float | None:
    """Seconds, from seconds or a date; None for neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
