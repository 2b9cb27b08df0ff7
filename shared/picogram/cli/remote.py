# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Who does the work of a command: the library here, or a server that ``--server`` names.

Both give the same values, so that a command prints the same lines and ends with the same codes. With a server neither
torch nor models are needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Protocol, cast

import numpy as np
import typer

import picogram
from picogram.bitstream import parse
from picogram.cli.batch import missing_extra
from picogram.cli.focus import mask_of_weights
from picogram.cli.png_text import with_text
from picogram.errors import UsageError
from picogram.images import read_image, write_image
from picogram.profiles.drawing import Drawing, Told
from picogram.request import EncodeArguments, EncodeOptions
from picogram.semantics.description import Description
from picogram.semantics.words import default_words

if TYPE_CHECKING:
    from picogram.client import Client, EncodeRequest, Event

Progress = Callable[[float], None]
"""Hears how much of a picture is drawn, 0 to 1."""

API_KEY: Final = "PICOGRAM_API_KEY"
SOFTWARE: Final = {"Software": "picogram; partly imagined"}
"""What decoded PNG files say of their origin."""

Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Let this server do the work.", show_default=False),
]
ApiKeyName = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the server's API key."),
]


@dataclass(frozen=True)
class Coded:
    """A ``.pico`` file, its warnings, what it says in words, by section who coded them, and which caption shaped it."""

    data: bytes
    warnings: tuple[str, ...] = ()
    description: Description | None = None
    coders: dict[str, str] = field(default_factory=dict)
    heard: str | None = None


@dataclass(frozen=True)
class Drawn:
    """An image file, the size of its picture, and what the ``.pico`` file said in words."""

    data: bytes
    width: int
    height: int
    description: Description | None = None
    warnings: tuple[str, ...] = ()


class Codec(Protocol):
    """Raises PicogramError for whatever goes wrong."""

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Coded: ...

    def decode(self, data: bytes, media_type: str, drawing: Drawing, progress: Progress | None) -> Drawn: ...

    def inspect(self, data: bytes) -> picogram.Inspection: ...

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description: ...


class Here:
    """The library."""

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Coded:
        encoded = picogram.encode_detailed(source, options)
        return Coded(encoded.data, encoded.warnings, encoded.description, encoded.coders, encoded.heard)

    def decode(self, data: bytes, media_type: str, drawing: Drawing, progress: Progress | None) -> Drawn:
        watch = Told(progress) if progress else None
        decoded = picogram.decode_detailed(data, **asdict(drawing), watch=watch)
        image = decoded.picture
        written = _signed(write_image(image, media_type), media_type, decoded.description)
        return Drawn(written, image.width, image.height, decoded.description, decoded.warnings)

    def inspect(self, data: bytes) -> picogram.Inspection:
        return picogram.inspect(data)

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description:
        (description,) = default_words().describe([read_image(source)], side=mask_side)
        return description


class There:
    """A server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Coded:
        from picogram.semantics.objects import split_objects
        from picogram.text.coder import coder_of

        caption = options.caption
        encoded = self._client.encode(source, **_request(options))
        # What was given is whole; the answer's headers are not where the caption is long.
        if encoded.caption is None:
            heard = encoded.heard if caption is None or encoded.heard is None else caption
            return Coded(encoded.data, encoded.warnings, heard=heard)
        description = Description(
            encoded.caption if caption is None else caption, tuple(options.objects or ())
        )
        texts = parse(encoded.data).optional
        if "objects" in texts:
            texts = texts | {"objects": split_objects(texts["objects"])[0]}
        coders = {name: coder_of(text) for name, text in texts.items()}
        return Coded(encoded.data, encoded.warnings, description, coders)

    def decode(self, data: bytes, media_type: str, drawing: Drawing, progress: Progress | None) -> Drawn:
        def tell(event: Event) -> None:
            if progress and event.name == "progress" and event.data.get("step") == "decoder":
                progress(event.data["fraction"])

        wishes = {name: value for name, value in asdict(drawing).items() if value is not None}
        decoded = self._client.decode(data, media_type, on_progress=tell if progress else None, **wishes)
        description = None if decoded.caption is None else Description(self._whole(data, decoded.caption))
        written = _signed(decoded.data, decoded.media_type, description)
        return Drawn(written, decoded.width, decoded.height, description, decoded.warnings)

    def inspect(self, data: bytes) -> picogram.Inspection:
        return self._client.inspect(data)

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description:
        return self._client.describe(source, mask_side=mask_side)

    def _whole(self, data: bytes, caption: str) -> str:
        """The caption of a file, of which a header may hold the start only."""
        if not caption.endswith("…"):
            return caption
        return self._client.inspect(data).details["caption"].text or caption


def _request(options: EncodeOptions) -> EncodeRequest:
    """The arguments of a client; weights become a mask. Raises UsageError where that is all of the picture."""
    given = {name: getattr(options, name) for name in EncodeArguments.__annotations__}
    if options.focus is not None and not isinstance(options.focus, str):
        given |= {"focus": None, "focus_mask": mask_of_weights(np.asarray(options.focus, np.float32))}
    return cast("EncodeRequest", given)


@contextmanager
def codec(server: str | None, api_key_name: str) -> Iterator[Codec]:
    """Whoever is to do the work. Raises UsageError for a bad URL or a key that is not there, and for a missing extra."""
    if server is None:
        yield Here()
        return
    key = os.environ.get(api_key_name) or None
    if key is None and api_key_name != API_KEY:
        raise UsageError(f"the environment variable {api_key_name} holds no API key")
    try:
        from picogram.client import Client
    except ModuleNotFoundError as error:
        raise missing_extra(f"the client (no module {error.name})", "client") from error
    with Client(server, key) as client:
        yield There(client)


def _signed(data: bytes, media_type: str, description: Description | None) -> bytes:
    """PNG files say where they come from, and what is in them."""
    if media_type != "image/png":
        return data
    return with_text(data, SOFTWARE | ({"Description": description.caption} if description else {}))
