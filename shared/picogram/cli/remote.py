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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Protocol, cast

import numpy as np
import typer

import picogram
from picogram.cli.batch import missing_extra
from picogram.cli.focus_arguments import mask_of_weights
from picogram.cli.png_text import with_text
from picogram.errors import UsageError
from picogram.images import read_image
from picogram.pipeline.draw import ProgressWatch
from picogram.request import DecodeOptions, EncodeArguments, EncodeOptions
from picogram.results import Decoded, Encoded
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


class Codec(Protocol):
    """Raises PicogramError for whatever goes wrong."""

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Encoded: ...

    def decode(
        self, data: bytes, media_type: str, options: DecodeOptions, progress: Progress | None
    ) -> Decoded: ...

    def inspect(self, data: bytes) -> picogram.Inspection: ...

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description: ...


class LocalCodec:
    """The library."""

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Encoded:
        return picogram.encode_detailed(source, options)

    def decode(
        self, data: bytes, media_type: str, options: DecodeOptions, progress: Progress | None
    ) -> Decoded:
        watch = ProgressWatch(progress) if progress else None
        return picogram.decode_detailed(data, options, watch=watch)

    def inspect(self, data: bytes) -> picogram.Inspection:
        return picogram.inspect(data)

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description:
        (description,) = default_words().describe([read_image(source)], side=mask_side)
        return description


class RemoteCodec:
    """A server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def encode(self, source: Path | BinaryIO, options: EncodeOptions) -> Encoded:
        return self._client.encode(source, **_request(options))

    def decode(
        self, data: bytes, media_type: str, options: DecodeOptions, progress: Progress | None
    ) -> Decoded:
        def tell(event: Event) -> None:
            if progress and event.name == "progress" and event.data.get("step") == "decoder":
                progress(event.data["fraction"])

        return self._client.decode(
            data, media_type, on_progress=tell if progress else None, **options.plain()
        )

    def inspect(self, data: bytes) -> picogram.Inspection:
        return self._client.inspect(data)

    def describe(self, source: Path | BinaryIO, mask_side: int) -> Description:
        return self._client.describe(source, mask_side=mask_side)


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
        yield LocalCodec()
        return
    key = os.environ.get(api_key_name) or None
    if key is None and api_key_name != API_KEY:
        raise UsageError(f"the environment variable {api_key_name} holds no API key")
    try:
        from picogram.client import Client
    except ModuleNotFoundError as error:
        raise missing_extra(f"the client (no module {error.name})", "client") from error
    with Client(server, key) as client:
        yield RemoteCodec(client)


def signed(decoded: Decoded, media_type: str) -> bytes:
    """The image file of a decoded picture; PNG files say where they come from, and what is in them."""
    data = decoded.image_file(media_type)
    if media_type != "image/png":
        return data
    return with_text(
        data, SOFTWARE | ({"Description": decoded.caption} if decoded.caption is not None else {})
    )
