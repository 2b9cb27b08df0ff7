# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The bytes to send for an image, whatever form it comes in; the server reads them as the library would here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from picogram.api import ImageSource
from picogram.errors import ImageTooLarge, UnreadableImage, UsageError
from picogram.images import DEFAULT_LIMITS, from_array, normalise, write_image

PNG = "image/png"
OPAQUE = "application/octet-stream"


def image_bytes(source: ImageSource) -> tuple[bytes, str]:
    """The file and its media type: a file's own bytes, unread, or a PNG of a PIL image or an array.

    Raises UsageError (cannot be read), UnreadableImage (empty), ImageTooLarge (bytes), and ``normalise``'s errors.
    """
    if isinstance(source, Image.Image):
        return write_image(normalise(source), PNG), PNG
    if isinstance(source, np.ndarray):
        return write_image(from_array(source), PNG), PNG
    data = _read(source)
    if not data:
        raise UnreadableImage("the image is empty")
    if len(data) > DEFAULT_LIMITS.max_bytes:
        raise ImageTooLarge(f"the file is more than the limit of {DEFAULT_LIMITS.max_bytes:,} bytes")
    return data, OPAQUE


def _read(source: ImageSource) -> bytes:
    """One byte over the limit at most, so that a pipe without end stops too."""
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                return file.read(DEFAULT_LIMITS.max_bytes + 1)
        if isinstance(source, bytes | bytearray | memoryview):
            return bytes(source)
        read = getattr(source, "read", None)
        if read is None:
            raise UsageError(f"expected an image, not {type(source).__name__}")
        data: bytes = read(DEFAULT_LIMITS.max_bytes + 1)
        return data
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}") from error
