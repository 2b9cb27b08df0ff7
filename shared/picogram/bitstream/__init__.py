# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The ``.pico`` container and its range coder; no torch. Specified byte by byte in ``docs/bitstream.md``."""

from picogram.bitstream.container import (
    MEDIA_TYPE,
    SUFFIX,
    VERSION,
    Header,
    Limits,
    Picogram,
    Profile,
    parse,
    serialise,
)

__all__ = ["MEDIA_TYPE", "SUFFIX", "VERSION", "Header", "Limits", "Picogram", "Profile", "parse", "serialise"]
