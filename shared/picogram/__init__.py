# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Picogram: photographs in a few hundred to a few thousand bytes.

    >>> import picogram
    >>> data = picogram.encode("photo.jpg", bytes=1200)     # a whole .pico file
    >>> picture = picogram.decode(data)                     # PIL.Image, at the original size
    >>> picogram.inspect(data).bpp
    >>> picogram.encode_detailed("photo.jpg", bytes=1200, profile="stc").description.caption

``picogram.Client(url)`` and ``picogram.AsyncClient(url)`` do the same on a server; they need httpx2, and load only when
they are asked for.

Reconstructions are partly imagined: not for evidence, medicine or identity.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from picogram.api import Inspection, decode, decode_detailed, encode, encode_detailed, inspect
from picogram.bitstream import MEDIA_TYPE, SUFFIX
from picogram.errors import PicogramError
from picogram.request import DecodeOptions, EncodeOptions
from picogram.results import Decoded, Encoded
from picogram.semantics.description import Description, Region
from picogram.version import VERSION

if TYPE_CHECKING:
    from picogram import client as client
    from picogram.client import AsyncClient as AsyncClient
    from picogram.client import Client as Client

__version__ = VERSION

__all__ = [
    "MEDIA_TYPE",
    "SUFFIX",
    "DecodeOptions",
    "Decoded",
    "Description",
    "EncodeOptions",
    "Encoded",
    "Inspection",
    "PicogramError",
    "Region",
    "__version__",
    "decode",
    "decode_detailed",
    "encode",
    "encode_detailed",
    "inspect",
]


def __getattr__(name: str) -> object:
    """Clients, whose httpx2 takes a while to load and may be missing. Not in ``__all__``, for the same reason."""
    if name not in ("AsyncClient", "Client", "client"):
        raise AttributeError(f"module 'picogram' has no attribute {name!r}")
    client = import_module("picogram.client")
    return client if name == "client" else getattr(client, name)
