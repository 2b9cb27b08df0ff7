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

import numpy as np
import uvicorn
from PIL import Image
from structlog.testing import capture_logs

from picogram.bitstream import MEDIA_TYPE, Header, Picogram, Profile, parse, serialise
from picogram.images import read_image, write_image
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.pipeline.handovers import JobReport, WordsRead, WordsToWrite
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.request import EncodeOptions
from picogram.results import Decoded, Drawing, Encoded, ImageFile
from picogram.semantics.description import Description
from picogram.semantics.words import ReadText, TextSections
from picogram.text.coder import TextCoder
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import Backend, embedded_backend, inspect_jobs

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
            "inspector": inspect_jobs,
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
        left = WordsToWrite.of(job.facts)
        prepared = left.prepared if left else PreparedWords()
        variant, profile = prepared.variants[0], Profile[job.options["profile"].upper()]
        header = Header(profile, picture.width, picture.height, 1)
        file = serialise(Picogram(header, b"\x09latent", variant.sections.optional))
        encoded = Encoded(file, variant.description, variant.sections.coders, prepared.hints.heard)
        return Result(file, MEDIA_TYPE, JobReport(encoded.facts()).facts() | WordsToWrite.taken())


def _decode(job: Job) -> Outcome:
    header, left = parse(job.payload).header, WordsRead.of(job.facts)
    picture = Image.new("RGB", (header.width, header.height), "red")
    job.control.preview("image/webp", write_image(picture.resize((2, 2)), "image/webp"))
    media_type, steps = job.options["media_type"], job.options["steps"] or 0
    file = ImageFile(write_image(picture, media_type), media_type, picture.size)
    drawing = Drawing(min(steps, 1), steps, job.options["guidance"], job.options["seed"], "red")
    decoded = Decoded(file, left.text.description if left else None, drawing)
    return Result(file.data, media_type, JobReport(decoded.facts()).facts() | WordsRead.taken())


def _words(job: Job) -> Outcome:
    if job.task == "describe":
        return Result(json.dumps(SEEN).encode(), "application/json")
    if job.task == "read":
        (text,) = TextCoder().decode([parse(job.payload).optional["caption"]])
        assert isinstance(text, str)
        return Result(job.payload, MEDIA_TYPE, WordsRead(ReadText(Description(text))).facts(), ODD)
    options = EncodeOptions.of(job.options)
    caption = str(SEEN["caption"]) if options.caption is None else options.caption
    if not options.spec.sections:
        states = np.zeros((1, 2), np.float16)
        hints = Hints(caption, states) if options.spec.guided and caption.strip() else Hints()
        return Result(job.payload, MEDIA_TYPE, WordsToWrite(PreparedWords(hints=hints)).facts())
    coded = TextCoder().encode([caption])[0]
    variant = WordsVariant(TextSections(coded.section, coders={"caption": coded.coder}), Description(caption))
    return Result(job.payload, MEDIA_TYPE, WordsToWrite(PreparedWords((variant,))).facts(), ODD)


@contextmanager
def listening(backend: Backend | None = None, **settings: Any) -> Iterator[str]:
    """The URL of a gateway over ``backend`` (None: the real one), ready, until the end of the block."""
    app = create_app(GatewaySettings(**settings), backend or embedded_backend())
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
