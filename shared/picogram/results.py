# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What comes of encoding and decoding, wherever it was done: here, by a worker, or by a server that a client asked.

Encoded ── facts() ──> plain values ── of(data, facts) ──> Encoded          for queues and HTTP
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from PIL import Image

from picogram.bitstream import Picogram, parse
from picogram.bitstream.container import section_sizes
from picogram.errors import UsageError
from picogram.images import DEFAULT_LIMITS, read_image, write_image
from picogram.semantics.description import Description
from picogram.semantics.plain import description_of, plain_description


@dataclass(frozen=True)
class Encoded:
    """A whole ``.pico`` file, what it says in words (None: nothing), and by section which coder wrote it.

    ``heard``: the caption that shaped the file and is not in it (profile "taco"). Of a server, ``timings`` are seconds in
    queues and running, ``job`` is its id of the job.
    """

    data: bytes
    description: Description | None = None
    coders: Mapping[str, str] = field(default_factory=dict)
    heard: str | None = None
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    job: str = ""

    @cached_property
    def file(self) -> Picogram:
        """Parsed."""
        return parse(self.data)

    @property
    def width(self) -> int:
        """Of the original picture, in pixels."""
        return self.file.header.width

    @property
    def height(self) -> int:
        """Of the original picture, in pixels."""
        return self.file.header.height

    @property
    def bpp(self) -> float:
        """Bits per pixel of the original picture, of the whole file."""
        return 8 * len(self.data) / (self.width * self.height)

    @cached_property
    def sections(self) -> dict[str, int]:
        """Bytes by section: ``latent``, ``caption`` and ``objects`` where they are, and ``header`` with the checksums;
        together they are the whole file.
        """
        sizes = section_sizes(self.data)
        return {"header": len(self.data) - sum(sizes.values()), **sizes}

    @property
    def caption(self) -> str | None:
        """That in the file."""
        return self.description.caption if self.description and "caption" in self.sections else None

    def facts(self) -> dict[str, Any]:
        """All but the file, as plain values."""
        return {
            "profile": self.file.header.profile.name.lower(),
            "bytes": len(self.data),
            "bpp": self.bpp,
            "width": self.width,
            "height": self.height,
            "sections": self.sections,
            "description": plain_description(self.description) if self.description else None,
            "coders": dict(self.coders),
            "heard": self.heard,
        }

    @classmethod
    def of(cls, data: bytes, facts: Mapping[str, Any], **more: Any) -> Encoded:
        """The inverse of ``facts``, of which any may be missing. Raises UsageError for words that cannot be."""
        plain, heard = facts.get("description"), facts.get("heard")
        if heard is not None and not isinstance(heard, str):
            raise UsageError(f"what was heard is a string, not {type(heard).__name__}")
        description = description_of(plain) if plain else None
        return cls(data, description, dict(facts.get("coders") or {}), heard, **more)


@dataclass(frozen=True)
class Drawing:
    """How a picture was drawn; the same ``steps``, ``guidance`` and ``seed`` draw it again.

    ``stages``: passes over the picture and its objects, 0 where nothing was imagined; ``steps`` and ``guidance``: of the
    last one. ``model``: who drew.
    """

    stages: int = 0
    steps: int = 0
    guidance: float | None = None
    seed: int = 0
    model: str = ""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class ImageFile:
    """``data`` of an image of ``media_type``; ``size``: width and height in pixels."""

    data: bytes
    media_type: str
    size: tuple[int, int]

    def read(self) -> Image.Image:
        """RGB. Raises ImageError for what is no good image."""
        return read_image(self.data, limits=replace(DEFAULT_LIMITS, max_bytes=len(self.data)))


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture, RGB at its original size; what the file says in words (None: nothing); how it was drawn.

    ``source``: the picture, or of a server the file that it sent, which is read when ``picture`` is first asked for.
    ``warnings``, ``timings``, ``job``: as in ``Encoded``.
    """

    source: Image.Image | ImageFile
    description: Description | None = None
    drawing: Drawing = Drawing()
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    job: str = ""

    @cached_property
    def picture(self) -> Image.Image:
        """RGB. Raises ImageError if a server sent no good image."""
        return self.source.read() if isinstance(self.source, ImageFile) else self.source

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.source.size

    @property
    def caption(self) -> str | None:
        """What the file says, if it has words that could be read."""
        return self.description.caption if self.description else None

    def image_file(self, media_type: str) -> bytes:
        """An image file of that type; the one that a server sent as it is. Raises UsageError for other types."""
        if isinstance(self.source, ImageFile) and self.source.media_type == media_type:
            return self.source.data
        return write_image(self.picture, media_type)

    def facts(self) -> dict[str, Any]:
        """All but the picture, as plain values."""
        width, height = self.size
        return {
            "width": width,
            "height": height,
            "description": plain_description(self.description) if self.description else None,
            "drawing": self.drawing.facts(),
        }

    @classmethod
    def of(cls, source: Image.Image | ImageFile, facts: Mapping[str, Any], **more: Any) -> Decoded:
        """The inverse of ``facts``, of which any may be missing; fields that are not known are left out."""
        plain, drawn = facts.get("description"), facts.get("drawing") or {}
        known = {name: drawn[name] for name in vars(Drawing()) if name in drawn}
        return cls(source, description_of(plain) if plain else None, Drawing(**known), **more)
