# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a server: requests, built once and sent as often as it takes, and how their answers are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

import httpx2
import numpy as np
import numpy.typing as npt

from picogram.api import ImageSource, Inspection
from picogram.bitstream import MEDIA_TYPE, Limits
from picogram.client.answers import (
    Decoded,
    Encoded,
    read_decoded,
    read_description,
    read_encoded,
    read_inspection,
)
from picogram.client.errors import Answer
from picogram.client.sources import image_bytes
from picogram.errors import LimitExceeded, NotAPicogram, UsageError
from picogram.jobs.job import Priority
from picogram.jobs.words import check_focus_mask, mask_of, plain_mask, plain_objects
from picogram.profiles.drawing import Drawing
from picogram.profiles.recipes import check_effort, check_focus
from picogram.semantics.description import MASK_SIDES, Description, Region

T = TypeVar("T")
_DRAWING = ("steps", "guidance", "seed")


class EncodeOptions(TypedDict, total=False):
    """At most one of ``bytes``, ``bpp`` and ``quality`` (0 to 100; default 35); profile "base", "stc", "misc", "taco" or
    "sedic"; a caption, and objects for "misc" and "sedic", by default the captioner's ("taco": the encoder listens to the
    caption, which is not in the file; "": to none); priority "high" or "normal".

    ``focus``: words for what matters most; or else ``focus_mask``: where that is, a square array of bools over the whole
    picture, side 8, 16, 32 or 64. ``effort`` 0 to 2, default 0: how long the encoder searches for a better file."""

    bytes: int | None
    bpp: float | None
    quality: float | None
    profile: str
    caption: str | None
    objects: Sequence[Region] | None
    focus: str | None
    focus_mask: npt.ArrayLike | None
    effort: int
    priority: Priority


class DecodeOptions(TypedDict, total=False):
    """``steps`` of the last pass, 0 to 50 (0: the base picture, nothing imagined), and ``guidance``, 0 to 20, by default
    the profile's; ``seed``, 0 to 2**32 - 1, default 0: the same gives the same picture; priority "high" or "normal"."""

    steps: int | None
    guidance: float | None
    seed: int
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


def encode_task(source: ImageSource, options: EncodeOptions) -> Task[Encoded]:
    """Raises UsageError, UnreadableImage and ImageTooLarge for what need not be sent to be refused."""
    data, media_type = image_bytes(source)
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    priority = given.pop("priority", None)
    check_effort(given.get("effort", 0))
    if not given.get("effort"):
        given.pop("effort", None)  # what every server does
    fields = _words(given.pop("caption", None), given.pop("objects", None))
    fields |= _focus(given.pop("focus", None), given.pop("focus_mask", None))
    params = {key: str(value) for key, value in given.items()}
    if fields:
        # In a form: they might not fit a URL.
        data, media_type = _form(data, fields)
    return Task(_post("/v1/encode", data, media_type, params, priority), read_encoded)


def decode_task(data: bytes, media_type: str, options: DecodeOptions) -> Task[Decoded]:
    """Raises UsageError, NotAPicogram and LimitExceeded for what need not be sent to be refused."""
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    priority = given.pop("priority", None)
    Drawing(**{key: value for key, value in given.items() if key in _DRAWING})
    params = {key: str(value) for key, value in given.items()}
    call = _post("/v1/decode", _file(data), MEDIA_TYPE, params, priority, Accept=media_type)
    return Task(call, read_decoded)


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


def _words(caption: str | None, objects: Sequence[Region] | None) -> dict[str, str]:
    """Form fields for words that are given. Raises UsageError for what no file can hold."""
    description = Description(caption or "", tuple(objects or ()))
    fields = {} if caption is None else {"caption": caption}
    return fields if objects is None else fields | {"objects": json.dumps(plain_objects(description.objects))}


def _focus(words: str | None, mask: npt.ArrayLike | None) -> dict[str, str]:
    """The form field for what matters most, if it is given. Raises UsageError for what no server takes."""
    if words is not None and mask is not None:
        raise UsageError("give at most one of focus and focus_mask")
    if words is not None:
        check_focus(words)
        return {"focus": words}
    if mask is None:
        return {}
    cells = np.asarray(mask)
    if cells.dtype != np.bool_ or cells.ndim != 2:
        raise UsageError("a focus mask is a square array of bools")
    rows = plain_mask(cells)
    check_focus_mask(mask_of(rows, "a focus mask"))
    return {"focus_mask": json.dumps(rows)}


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
