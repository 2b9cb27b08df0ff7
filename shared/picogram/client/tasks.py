# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a server: requests, built once and sent as often as it takes, and how their answers are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx2
import numpy as np
import numpy.typing as npt

from picogram.api import ImageSource, Inspection
from picogram.bitstream import MEDIA_TYPE, Limits
from picogram.client.failures import Answer
from picogram.client.reading_answers import read_decoded, read_description, read_encoded, read_inspection
from picogram.client.sources import image_bytes
from picogram.errors import LimitExceeded, NotAPicogram, UsageError
from picogram.jobs.job import Priority
from picogram.request import DecodeArguments, DecodeOptions, EncodeArguments, EncodeOptions, arguments_of
from picogram.results import Decoded, Encoded
from picogram.semantics.description import MASK_SIDES, Description
from picogram.semantics.plain import check_focus_mask, mask_of, plain_mask

T = TypeVar("T")


class EncodeRequest(EncodeArguments, total=False):
    """The fields of ``picogram.EncodeOptions``; ``focus_mask``, instead of a focus in words: where what matters most is,
    a square array of bools over the whole picture, side 8, 16, 32 or 64; priority "high" or "normal"."""

    focus_mask: npt.ArrayLike | None
    priority: Priority | None


class DecodeRequest(DecodeArguments, total=False):
    """The fields of ``picogram.DecodeOptions``; priority "high" or "normal"."""

    priority: Priority | None


@dataclass(frozen=True)
class Call:
    """One request, below the server's URL. The same ``content`` goes out at every try, form boundaries and all."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""

    def preferring(self, prefer: str) -> Call:
        """The same call with another ``Prefer``."""
        return Call(self.method, self.path, self.params, {**self.headers, "Prefer": prefer}, self.content)


@dataclass(frozen=True)
class Task(Generic[T]):
    """A call that makes a job, and how its result is read."""

    call: Call
    read: Callable[[Answer], T]


def encode_task(source: ImageSource, request: EncodeRequest) -> Task[Encoded]:
    """Raises UsageError, UnreadableImage and ImageTooLarge for what need not be sent to be refused."""
    data, media_type = image_bytes(source)
    given: dict[str, Any] = {key: value for key, value in request.items() if value is not None}
    priority, mask = given.pop("priority", None), given.pop("focus_mask", None)
    if mask is not None:
        if "focus" in given:
            raise UsageError("give at most one of focus and focus_mask")
        given["focus"] = _checked_mask(mask)
    told = _told(EncodeOptions, EncodeOptions(**given).plain())
    in_form = {argument.name for argument in arguments_of(EncodeOptions) if argument.form}
    fields = {name: told.pop(name) for name in in_form & told.keys()}
    if fields:
        # In a form: they might not fit a URL.
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
        data, media_type = _form(data, texts)
    params = {name: str(value) for name, value in told.items()}
    return Task(_post("/v1/encode", data, media_type, params, priority), read_encoded)


def decode_task(data: bytes, media_type: str, request: DecodeRequest) -> Task[Decoded]:
    """Raises UsageError, NotAPicogram and LimitExceeded for what need not be sent to be refused."""
    given: dict[str, Any] = {key: value for key, value in request.items() if value is not None}
    priority = given.pop("priority", None)
    told = _told(DecodeOptions, DecodeOptions(**given).plain())
    params = {name: str(value) for name, value in told.items()}
    call = _post("/v1/decode", _file(data), MEDIA_TYPE, params, priority, Accept=media_type)
    return Task(call, read_decoded)


def _told(options: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be sent: a server takes the rest for granted."""
    defaults = {argument.name: argument.default for argument in arguments_of(options)}
    return {name: value for name, value in plain.items() if value is not None and value != defaults[name]}


def inspect_task(data: bytes) -> Task[Inspection]:
    """Raises what ``decode_task`` does."""
    return Task(_post("/v1/inspect", _file(data), MEDIA_TYPE), read_inspection)


def describe_task(source: ImageSource, mask_side: int, priority: Priority | None) -> Task[Description]:
    """Raises what ``encode_task`` does."""
    params = {"mask_side": str(mask_side)} if mask_side != MASK_SIDES[0] else {}
    return Task(_post("/v1/describe", *image_bytes(source), params, priority), read_description)


def job_path(job: str, what: str = "") -> str:
    """Where a job's state is, or its ``/result`` or ``/events``."""
    return f"/v1/jobs/{quote(job, safe='')}{what}"


def _post(
    path: str,
    content: bytes,
    media_type: str,
    params: Mapping[str, str] | None = None,
    priority: Priority | None = None,
    **headers: str,
) -> Call:
    headers |= {"Content-Type": media_type, "Idempotency-Key": str(uuid.uuid4())}
    if priority is not None:
        headers["X-Picogram-Priority"] = priority
    return Call("POST", path, params or {}, headers, content)


def _checked_mask(mask: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Raises UsageError for what no server takes."""
    cells = np.asarray(mask)
    if cells.dtype != np.bool_ or cells.ndim != 2:
        raise UsageError("a focus mask is a square array of bools")
    check_focus_mask(mask_of(plain_mask(cells), "a focus mask"))
    return cells


def _form(image: bytes, fields: Mapping[str, str]) -> tuple[bytes, str]:
    request = httpx2.Request("POST", "http://form.invalid", data=fields, files={"image": ("image", image)})
    return request.read(), request.headers["content-type"]


def _file(data: bytes) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UsageError(f"expected the bytes of a .pico file, not {type(data).__name__}")
    if not len(data):
        raise NotAPicogram("the file is empty")
    if len(data) > Limits.max_file_bytes:
        raise LimitExceeded(f"more than the limit of {Limits.max_file_bytes:,} bytes")
    return bytes(data)
