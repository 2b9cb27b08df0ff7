# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A gateway that listens, over workers that need no model: a "photograph" is coded as its size and its caption."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from PIL import Image
from structlog.testing import capture_logs

from picogram.bitstream import MEDIA_TYPE, Header, Picogram, Profile, parse, serialise
from picogram.images import read_image, write_image
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.text.coder import TextCoder
from picogram_gateway.app import create_app
from picogram_gateway.settings import GatewaySettings
from picogram_gateway.workers import Backend
from picogram_gateway.workers import inspect_jobs as inspector

MASK = ["." * 8] * 4 + ["#" * 8] * 4
SEEN = {"caption": "A red dog.", "objects": [{"name": "dog", "detail": "red", "mask": MASK}]}
ODD = ("the \u202ewords are \\odd",)


@dataclass
class Workers:
    """Handlers that count what they do, and that wait at the ``gate`` until a test opens it."""

    encoded: int = 0
    options: list[Mapping[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    canceled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def backend(self) -> Backend:
        handlers: dict[str, Handler] = {
            "encoder": lambda jobs: [self._encode(job) for job in jobs],
            "decoder": lambda jobs: [_decode(job) for job in jobs],
            "lmm": lambda jobs: [_words(job) for job in jobs],
            "inspector": inspector,
        }
        return Backend(handlers, catalogue=lambda: {"profiles": ["base", "stc"], "models": []})

    def _encode(self, job: Job) -> Outcome:
        self.encoded += 1
        self.options.append(job.options)
        job.control.progress(0.5)
        while not self.gate.wait(0.01):
            if job.control.canceled:
                self.canceled.set()
                break
        try:
            job.control.check()
            picture = read_image(job.payload)
        except Exception as error:
            return error
        job.control.preview("image/png", write_image(picture.resize((2, 2)), "image/png"))
        caption = (job.facts.get("description") or {}).get("caption")
        words = {} if caption is None else {"caption": TextCoder().encode([caption])[0].section}
        profile = Profile[job.options["profile"].upper()]
        header = Header(profile, picture.width, picture.height, 1)
        heard = {"heard": job.facts.get("hints", {}).get("heard")}
        return Result(serialise(Picogram(header, b"\x09latent", words)), MEDIA_TYPE, heard)


def _decode(job: Job) -> Outcome:
    header = parse(job.payload).header
    picture = Image.new("RGB", (header.width, header.height), "red")
    job.control.preview("image/webp", write_image(picture.resize((2, 2)), "image/webp"))
    media_type = job.options["media_type"]
    facts = {"width": picture.width, "height": picture.height}
    facts |= {name: job.options[name] for name in ("steps", "seed") if job.options[name] is not None}
    return Result(write_image(picture, media_type), media_type, facts)


def _words(job: Job) -> Outcome:
    if job.task == "describe":
        return Result(json.dumps(SEEN).encode(), "application/json")
    if job.task == "read":
        (text,) = TextCoder().decode([parse(job.payload).optional["caption"]])
        return Result(job.payload, MEDIA_TYPE, {"description": {"caption": text, "objects": []}}, ODD)
    caption = job.options.get("caption")
    description = {"caption": SEEN["caption"] if caption is None else caption, "objects": []}
    if job.options["profile"] in ("base", "taco"):
        heard = {"heard": description["caption"]} if job.options["profile"] == "taco" else {}
        return Result(job.payload, MEDIA_TYPE, {"hints": heard})
    return Result(job.payload, MEDIA_TYPE, {"description": description}, ODD)


@contextmanager
def listening(backend: Backend | None = None, **settings: Any) -> Iterator[str]:
    """The URL of a gateway over ``backend`` (None: the real one), ready, until the end of the block."""
    app = create_app(GatewaySettings(**settings), backend)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    with capture_logs():  # they would mix with what a command prints
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not (server.started and app.state.dispatcher.warm):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()
