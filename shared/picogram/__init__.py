# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Picogram: photographs in a few hundred to a few thousand bytes.

    >>> import picogram
    >>> data = picogram.encode("photo.jpg", bytes=1200)     # a whole .pico file
    >>> picture = picogram.decode(data)                     # PIL.Image, at the original size
    >>> picogram.inspect(data).bpp

Reconstructions are partly imagined: not for evidence, medicine or identity.
"""

from picogram.api import Inspection, decode, encode, inspect
from picogram.bitstream import MEDIA_TYPE, SUFFIX
from picogram.errors import PicogramError

__version__ = "0.1.0"

__all__ = [
    "MEDIA_TYPE",
    "SUFFIX",
    "Inspection",
    "PicogramError",
    "__version__",
    "decode",
    "encode",
    "inspect",
]
