# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From a body to a job: what it is and how large, read from its header alone, so that a bomb gets no further than this.

Where the body is not small this is work for a thread: a header may be long.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from picogram.bitstream import parse
from picogram.images import read_size
from picogram_gateway.kinds import Kind
from picogram_gateway.steps import DESCRIBE, REFERENCE, Route, decode_route, encode_route, inspect_route

_COSTS: Final = (1, 16, 64)
"""Of an encode, by effort: how many times the work of one that only rounds."""
_PATIENCE: Final = (1, 2, 4)
_SMALL_BYTES: Final = 16 * 1024
"""A file of that size is parsed in less time than a thread takes to begin."""


@dataclass(frozen=True)
class Order:
    """What to do. ``cost`` is in pixels; ``patience``: by how much a job may take longer than others."""

    kind: Kind
    payload: bytes
    options: Mapping[str, Any] = field(default_factory=dict)
    route: Route = ()
    cost: int = 1
    patience: int = 1

    @property
    def fingerprint(self) -> str:
        """What another request with the same idempotency key has to equal: SHA-256 over kind, options and payload."""
        options = json.dumps(self.options, sort_keys=True, separators=(",", ":"))
        head = f"{self.kind}\n{options}\n".encode()
        return hashlib.sha256(head + hashlib.sha256(self.payload).digest()).hexdigest()


async def order_for_image(kind: Kind, image: bytes, **options: Any) -> Order:
    """Encode, describe or compare. Raises UnreadableImage, UnsupportedImage or ImageTooLarge."""
    width, height = await asyncio.to_thread(read_size, image)
    effort = options.get("effort", 0)
    cost = width * height * _COSTS[effort]
    return Order(kind, image, options, _image_route(kind, options), cost, _PATIENCE[effort])


async def order_for_file(kind: Kind, data: bytes, **options: Any) -> Order:
    """Decode or inspect. Raises a BitstreamError."""
    file = parse(data) if len(data) <= _SMALL_BYTES else await asyncio.to_thread(parse, data)
    if kind == "inspect":
        return Order(kind, data, options, inspect_route(file))
    return Order(kind, data, options, decode_route(file), file.header.width * file.header.height)


def _image_route(kind: Kind, options: Mapping[str, Any]) -> Route:
    if kind == "encode":
        return encode_route(options["profile"], options["caption"], options["focus"])
    return DESCRIBE if kind == "describe" else REFERENCE
