# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From answers to values: encoded files, pictures, inspections, descriptions, states and events of jobs.

Everything here raises BadAnswer for an answer that is not what ``docs/http.md`` promises.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar, get_args

import httpx2
from PIL import Image

from picogram.api import Inspection, Section
from picogram.bitstream import MEDIA_TYPE
from picogram.client.failures import Answer, BadAnswer, as_raised, failure_of_problem
from picogram.errors import PicogramError, UsageError
from picogram.images import read_image
from picogram.jobs.state import Event, EventName, JobState
from picogram.results import Decoded, Encoded, ImageFile
from picogram.semantics.description import Description
from picogram.semantics.plain import description_of

T = TypeVar("T")

JOB_HEADER: Final = "x-picogram-job"
_NAMES: Final = frozenset(get_args(EventName))
# What the server's warnings escape: ``printable``, and then ASCII with backslashes.
_ESCAPED: Final = re.compile(r"\\(?:\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4})")


def read_encoded(answer: Answer) -> Encoded:
    """The answer of ``/v1/encode``."""
    _expect(answer, MEDIA_TYPE)
    with _promised(answer):
        encoded = Encoded.of(answer.body, answer.facts, **_told(answer))
        _ = encoded.file  # what cannot be parsed is no file
        return encoded


def read_decoded(answer: Answer) -> Decoded:
    """The answer of ``/v1/decode``."""
    if not answer.media_type.startswith("image/"):
        raise BadAnswer(f"expected an image, not {answer.media_type or 'nothing'}", status=answer.status)
    with _promised(answer):
        width, height = (int(answer.headers[f"x-picogram-{name}"]) for name in ("width", "height"))
        source = ImageFile(answer.body, answer.media_type, (width, height))
        return Decoded.of(source, {"drawing": _drawing(answer)} | dict(answer.facts), **_told(answer))


def read_facts(answer: Answer) -> dict[str, Any]:
    """What ``/v1/jobs/{id}`` says of a job's result."""
    facts = answer.json().get("result") or {}
    if not isinstance(facts, dict):
        raise BadAnswer("the job's result is no JSON object", status=answer.status)
    return facts


def read_inspection(answer: Answer) -> Inspection:
    """The answer of ``/v1/inspect``; fields that a newer server adds are left out."""
    said = answer.json()
    with _promised(answer):
        details = {
            name: Section(**{f.name: section[f.name] for f in fields(Section)})
            for name, section in said["details"].items()
        }
        plain = {f.name: said[f.name] for f in fields(Inspection)}
        return Inspection(**plain | {"details": details, "warnings": tuple(said["warnings"])})


def read_description(answer: Answer) -> Description:
    """The answer of ``/v1/describe``."""
    said = answer.json()
    with _promised(answer):
        return description_of(said)


_READERS: Final[Mapping[str, Callable[[Answer], Any]]] = {
    "encode": read_encoded,
    "decode": read_decoded,
    "inspect": read_inspection,
    "describe": read_description,
}


def reader_of(kind: str) -> Callable[[Answer], Any]:
    """How the result of such a job is read. Raises UsageError for kinds that only other clients ask for."""
    if kind not in _READERS:
        raise UsageError(f"this client cannot read the result of a job of kind {kind}")
    return _READERS[kind]


def read_state(answer: Answer) -> JobState:
    """The answer of ``/v1/jobs/{id}``. Times are Unix seconds; the owner, who is the caller, is left empty."""
    said = answer.json()
    with _promised(answer):
        problem = said.get("error")
        return JobState(
            id=str(said["id"]),
            kind=said["kind"],
            status=said["status"],
            step=said["step"],
            priority=said["priority"],
            owner="",
            created_at=_seconds(said["created"]),
            updated_at=_seconds(said["updated"]),
            deadline=_seconds(said["deadline"]) if said.get("deadline") else None,
            attempt=int(said["attempt"]),
            progress=float(said["progress"]),
            error=as_raised(failure_of_problem(problem)) if problem else None,
        )


def read_event(message: httpx2.ServerSentEvent) -> Event | None:
    """An event of ``/v1/jobs/{id}/events``; None for one that this client does not know."""
    if message.event not in _NAMES:
        return None
    try:
        data = dict(json.loads(message.data))
        return Event(message.id, message.event, float(data.pop("at")), data)  # type: ignore[arg-type]
    except (LookupError, TypeError, ValueError) as error:
        raise BadAnswer(f"the server sent an unreadable {message.event} event") from error


def read_preview(event: Event) -> Image.Image:
    """The early picture of a ``preview`` event, RGB, smaller than the final one."""
    try:
        return read_image(base64.b64decode(event.data["data"], validate=True))
    except (LookupError, TypeError, ValueError, PicogramError) as error:
        raise BadAnswer("the server sent an unreadable preview") from error


def heard_by(
    on_progress: Callable[[Event], object] | None, on_preview: Callable[[Image.Image], object] | None
) -> Callable[[Event], object] | None:
    """What is to hear a job's events: previews go to ``on_preview``, if there is one, and all else to ``on_progress``."""
    if on_preview is None:
        return on_progress

    def hear(event: Event) -> object:
        if event.name == "preview":
            return on_preview(read_preview(event))
        return None if on_progress is None else on_progress(event)

    return hear


def _drawing(answer: Answer) -> dict[str, Any]:
    """How a picture was drawn, as far as the headers say."""
    kinds = {"stages": int, "steps": int, "guidance": float, "seed": int, "model": str}
    told = {name: answer.headers.get(f"x-picogram-{name}") for name in kinds}
    return {name: kinds[name](value) for name, value in told.items() if value is not None}


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "warnings": (*map(_plain, answer.headers.get_list("x-picogram-warning")), *answer.notes),
        "timings": _timings(answer.headers.get("server-timing", "")),
        "job": answer.headers.get(JOB_HEADER, ""),
    }


def _plain(warning: str) -> str:
    return _ESCAPED.sub(lambda found: found[0].encode().decode("unicode_escape"), warning)


def _timings(header: str) -> dict[str, float]:
    """Seconds by name, from ``queue;dur=12.3, run;dur=45.6`` in milliseconds."""
    found = re.finditer(r"([^\s;,]+);dur=(\d+(?:\.\d+)?)", header)
    return {each[1]: float(each[2]) / 1000 for each in found}


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _expect(answer: Answer, media_type: str) -> None:
    if answer.media_type != media_type:
        raise BadAnswer(
            f"expected {media_type}, not {answer.media_type or 'nothing'}; is this a Picogram server?",
            status=answer.status,
        )


@contextmanager
def _promised(answer: Answer) -> Iterator[None]:
    """Whatever fails in reading what was promised is the server's fault."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, PicogramError) as error:
        missing = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise BadAnswer(f"the answer cannot be read: {missing}", status=answer.status) from error
