# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a request says: its arguments, its body, the image type it accepts, and what its headers ask of the job.

arguments            those of encode and decode are what ``EncodeOptions`` and ``DecodeOptions`` offer, and check
body                 raw, or one file of a multipart form, whose other fields are arguments
Accept               RFC 9110, section 12.5.1, among the image types the decoder writes
Prefer               RFC 7240: whether to answer at once, and how long to wait first; what is unknown is ignored
Idempotency-Key      what repeats what
X-Picogram-Priority  how urgent it is
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from fastapi import Depends, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from picogram.bitstream import MEDIA_TYPE
from picogram.errors import UnsupportedProfile, UsageError
from picogram.jobs import Priority
from picogram.request import Argument, DecodeOptions, EncodeOptions, arguments_of
from picogram.semantics.plain import read_json
from picogram_gateway import openapi
from picogram_gateway.problems import ProblemError

_OPAQUE = ("", "application/octet-stream")
_MAX_FIELDS: Final = 8
_MAX_FIELD_BYTES: Final = 128 * 1024
_MAX_WAIT_DIGITS: Final = 6


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
    return media_type in (*_OPAQUE, MEDIA_TYPE)


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
    except (LookupError, UnicodeError):
        raise ProblemError(
            400, "bad-request", "Bad request", "the form has a charset that is not known"
        ) from None
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


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that the caller wants most; ties go to the first one offered.

    Raises a 406 problem when nothing offered is acceptable.
    """
    ranges = _media_ranges(accept or "*/*")
    best, best_quality = None, 0.0
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = media_type, quality
    if best is None:
        detail = f"cannot answer with {accept!r}; choose from {', '.join(offered)}"
        raise ProblemError(406, "not-acceptable", "Not acceptable", detail, offered=list(offered))
    return best


def _media_ranges(accept: str) -> dict[str, float]:
    """Media range to quality; what cannot be read counts as not acceptable."""
    ranges = {}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = _quality_value(value.strip())
        if name:
            ranges[name] = quality
    return ranges


def _quality_value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The quality of the most specific range that matches."""
    for name in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


@dataclass(frozen=True)
class Preference:
    """What the caller would like. ``wait``: seconds before a job that is not done is answered with 202."""

    respond_async: bool = False
    wait: int | None = None

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return self.respond_async or self.wait is not None

    def __str__(self) -> str:
        """As in ``Preference-Applied``."""
        wait = [] if self.wait is None else [f"wait={self.wait}"]
        return ", ".join(["respond-async"] * self.respond_async + wait)

    @property
    def seconds(self) -> float | None:
        """How long to wait; None: to the end."""
        return 0.0 if self.respond_async and self.wait is None else self.wait


def parse_prefer(values: Iterable[str]) -> Preference:
    """The preferences in all ``Prefer`` headers of a request; of one given twice, the first counts."""
    found: dict[str, str] = {}
    for item in ",".join(values).split(","):
        name, _, value = item.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    in_range = re.fullmatch(r"[0-9]+", wait) and len(wait) <= _MAX_WAIT_DIGITS
    return Preference("respond-async" in found, int(wait) if in_range else None)


@dataclass(frozen=True)
class JobHeaders:
    """What a caller may say about any job: ``Prefer``, ``Idempotency-Key`` (empty: none) and ``X-Picogram-Priority``."""

    prefer: Preference
    key: str
    priority: Priority


async def _job_headers(
    prefer: Annotated[
        list[str] | None,
        Header(
            description="RFC 7240. `respond-async`: answer 202 at once, with the job. `wait=N`: 202 after N seconds.",
            examples=["respond-async, wait=10"],
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="A repetition with the same key gets the same job; another request with it is refused.",
            examples=["5f0c6f5e-6f5b-4c3e-9d55-0d6b6c1f7a52"],
        ),
    ] = None,
    x_picogram_priority: Annotated[
        Priority, Header(description="Jobs of priority `high` run before all others.")
    ] = "normal",
) -> JobHeaders:
    return JobHeaders(parse_prefer(prefer or ()), idempotency_key or "", x_picogram_priority)


JobHeadersDep = Annotated[JobHeaders, Depends(_job_headers)]
"""The parameter of a route that starts a job."""


_EXAMPLES = {"objects": openapi.OBJECTS_EXAMPLE, "focus_mask": openapi.FOCUS_MASK_EXAMPLE}


class Arguments(BaseModel):
    """What may come in the query or as fields of the form that holds the body."""

    model_config = ConfigDict(extra="forbid")
    CHECKED: ClassVar[type[EncodeOptions] | type[DecodeOptions]]
    _plain: dict[str, Any] = PrivateAttr(default_factory=dict)

    def joined(self, fields: Mapping[str, str]) -> Self:
        """These arguments and those of a form; invalid or doubled ones are 422 problems."""
        given = self.model_dump(exclude_unset=True)
        if twice := sorted(given.keys() & fields.keys()):
            detail = f"{twice[0]} is in the query and in the form"
            raise ProblemError(422, "usage", "Invalid arguments", detail)
        try:
            return type(self).model_validate({**given, **fields})
        except ValidationError as error:
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            ) from error

    def options(self) -> dict[str, Any]:
        """For a job: those of ``EncodeOptions.plain`` or ``DecodeOptions.plain``."""
        return self._plain

    @model_validator(mode="after")
    def _checked(self) -> Self:
        given = self.model_dump()
        try:
            for argument in arguments_of(self.CHECKED):
                if argument.json and given[argument.name] is not None:
                    given[argument.name] = read_json(given[argument.name], argument.json)
            self._plain = self.CHECKED.of(given).plain()
        except (UsageError, UnsupportedProfile) as error:
            raise ValueError(str(error)) from error
        return self


def _query(options: type) -> Any:
    """A model with a field for each argument that ``options`` offers."""
    return create_model("Arguments", __base__=Arguments, **{a.name: _field(a) for a in arguments_of(options)})


def _field(argument: Argument) -> Any:
    """Described with kind and bounds, which only the options check, in the same words for everybody."""
    kind: Any = Literal[argument.choices] if argument.choices else argument.kind
    bounds = {"minimum": argument.low, "maximum": argument.high, "maxLength": argument.longest}
    example = _EXAMPLES.get(argument.name, argument.example)
    field = Field(
        argument.default,
        description=argument.help,
        examples=None if example is None else [example],
        json_schema_extra={name: value for name, value in bounds.items() if value is not None},
    )
    shown = kind if argument.default is not None else kind | None
    return Annotated[Any, PlainValidator(argument.value, json_schema_input_type=shown)], field


_EncodeArguments: Any = _query(EncodeOptions)
_DecodeArguments: Any = _query(DecodeOptions)


class EncodeQuery(_EncodeArguments):  # type: ignore[misc]
    """How small, or how good (at most one of ``bytes``, ``bpp`` and ``quality``), with which words, and what matters
    most (at most one of ``focus`` and ``focus_mask``)."""

    CHECKED = EncodeOptions


class DecodeQuery(_DecodeArguments):  # type: ignore[misc]
    """How the picture is drawn; the same file and arguments give the same picture."""

    CHECKED = DecodeOptions


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
