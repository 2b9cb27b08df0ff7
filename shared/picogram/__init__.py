# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Picogram: photographs in a few hundred to a few thousand bytes.

    >>> import picogram
    >>> data = picogram.encode("photo.jpg", bytes=1200)     # a whole .pico file
    >>> picture = picogram.decode(data)                     # PIL.Image, at the original size
    >>> picogram.inspect(data).bpp
    >>> picogram.encode_detailed("photo.jpg", bytes=1200, profile="stc").description.caption

Reconstructions are partly imagined: not for evidence, medicine or identity.
"""

from picogram.api import Decoded, Inspection, decode, decode_detailed, encode, encode_detailed, inspect
from picogram.bitstream import MEDIA_TYPE, SUFFIX
from picogram.errors import PicogramError
from picogram.semantics.description import Description, Region

__version__ = "0.1.0"

__all__ = [
    "MEDIA_TYPE",
    "SUFFIX",
    "Decoded",
    "Description",
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
