# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway on a port of its own, and a worker for it that does as a test says: pauses, reports, fails."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageFilter

from picogram.bitstream import Header, Picogram, Profile, parse, serialise
from picogram.images import read_image
from picogram.jobs import Handler, Job, Outcome, Result
from picogram.pipeline.handovers import JobReport, WordsRead, WordsToWrite
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.request import EncodeOptions
from picogram.results import Decoded, Drawing, Encoded
from picogram.semantics.description import Description
from picogram.semantics.plain import objects_of
from picogram.semantics.words import ReadText, TextSections
from picogram_gateway.app import create_app
from picogram_gateway.gateway_settings import GatewaySettings
from picogram_gateway.workers import Backend, inspect_jobs, shipped_catalogue


class Codec:
    """Its files have the size that was asked for; the picture is a gray blur. With ``go`` it waits until that is set.

    ``drawing`` is the same for the decoder, which first shows a preview and says that it is half done.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.warnings: tuple[str, ...] = ()
        self.go: threading.Event | None = None
        self.drawing: threading.Event | None = None
        self.objects: list[dict[str, Any]] = []
        self.encoded: list[Job] = []
        self.decoded: list[Job] = []
        self.canceled: list[str] = []

    @property
    def backend(self) -> Backend:
        handlers: dict[str, Handler] = {
            "encoder": lambda jobs: [self._guarded(self._encode, job) for job in jobs],
            "decoder": lambda jobs: [self._guarded(self._decode, job) for job in jobs],
            "lmm": lambda jobs: [self._words(job) for job in jobs],
            "inspector": inspect_jobs,
        }
        return Backend(handlers, catalogue=shipped_catalogue)

    def _guarded(self, work: Any, job: Job) -> Outcome:
        try:
            outcome: Outcome = work(job)
        except Exception as error:
            outcome = error
        if isinstance(outcome, Exception) and job.control.canceled:
            self.canceled.append(job.id)
        return outcome

    def _encode(self, job: Job) -> Outcome:
        self.encoded.append(job)
        image = read_image(job.payload)
        job.control.progress(0.25)
        job.control.preview("image/png", png(image.resize((16, 16))))
        while self.go is not None and not self.go.wait(0.02):
            job.control.check()
        if self.error:
            return self.error
        left = WordsToWrite.of(job.facts)
        prepared = left.prepared if left else PreparedWords()
        (variant,), words = prepared.variants, prepared.variants[0].sections.optional
        header = Header(Profile[job.options["profile"].upper()], image.width, image.height, 1)
        empty = len(serialise(Picogram(header, b"", words)))
        latent = bytes(i * 7919 % 251 for i in range(job.options["bytes"] - empty - 2))
        file = serialise(Picogram(header, latent, words))
        encoded = Encoded(file, variant.description, heard=prepared.hints.heard)
        facts = JobReport(encoded.facts()).facts() | WordsToWrite.taken()
        return Result(file, "application/vnd.picogram", facts, self.warnings)

    def _decode(self, job: Job) -> Outcome:
        self.decoded.append(job)
        header = parse(job.payload).header
        if self.drawing is not None:
            job.control.preview("image/png", png(Image.new("RGB", (24, 16), "teal")))
            job.control.progress(0.5)
        while self.drawing is not None and not self.drawing.wait(0.02):
            job.control.check()
        noise = Image.effect_noise((header.width, header.height), 60).filter(ImageFilter.GaussianBlur(4))
        steps = 1 if job.options["steps"] is None else job.options["steps"]
        drawing = Drawing(min(steps, 1), steps, seed=job.options["seed"])
        facts = JobReport(Decoded(noise, drawing=drawing).facts()).facts() | WordsRead.taken()
        return Result(png(noise), "image/png", facts)

    def _words(self, job: Job) -> Outcome:
        if job.task == "read":
            seen = Description("What the captioner sees.", objects_of(self.objects))
            return Result(job.payload, "", WordsRead(ReadText(seen)).facts())
        options = EncodeOptions.of(job.options)
        caption = options.caption or "What the captioner sees."
        if not options.spec.sections:
            hints = Hints(caption, np.zeros((1, 2), np.float16)) if options.spec.guided else Hints()
            return Result(job.payload, "", WordsToWrite(PreparedWords(hints=hints)).facts())
        objects = b"objects" if self.objects else None
        sections, seen = (
            TextSections(caption.encode(), objects),
            Description(caption, objects_of(self.objects)),
        )
        prepared = PreparedWords((WordsVariant(sections, seen),))
        return Result(job.payload, "", WordsToWrite(prepared).facts())


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app's address, until the end of the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, ws="none", log_config=None, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started and time.monotonic() < deadline and thread.is_alive():
                time.sleep(0.01)
            assert server.started, "the gateway did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def fake_gateway(codec: Codec, **settings: Any) -> FastAPI:
    return create_app(GatewaySettings(**settings), codec.backend)
