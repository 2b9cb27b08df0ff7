# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The objects section: what the objects are called, coded as a text, and where they are, coded as masks.

varint n │ n bytes: the text section of "name: detail; name" │ masks: one range-coded stream
                                                               for each object its side, then its mask
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from picogram.bitstream.container import read_varint, write_varint
from picogram.errors import CorruptBitstream
from picogram.semantics.description import MASK_SIDES, MAX_OBJECTS, Region, parse_objects_text
from picogram.semantics.masks import read_mask, write_mask
from picogram.text.fixed import fixed_symbol, read_fixed
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

_SIDE_COUNTS = (13, 1, 1, 1)
"""How often each of MASK_SIDES is expected, in sixteenths."""


def join_objects(text_section: bytes, regions: Sequence[Region]) -> bytes:
    """The objects section: the coded text of ``objects_text(regions)`` and their masks."""
    encoder = WideRangeEncoder()
    for region in regions:
        encoder.encode(*fixed_symbol(_SIDE_COUNTS, MASK_SIDES.index(len(region.mask))))
        write_mask(encoder, region.mask)
    return write_varint(len(text_section)) + text_section + encoder.finish()


def split_objects(section: bytes) -> tuple[bytes, bytes]:
    """The text section and the masks' stream inside an objects section; CorruptBitstream if it is cut off."""
    length, start = read_varint(section, 0)
    if start + length > len(section):
        raise CorruptBitstream("the objects section is cut off")
    return section[start : start + length], section[start + length :]


def read_objects(text: str, masks: bytes) -> tuple[Region, ...]:
    """The regions that a decoded text and a stream of masks make; CorruptBitstream if they make none."""
    count = text.count(";") + 1 if text else 0
    if not 1 <= count <= MAX_OBJECTS:
        raise CorruptBitstream(f"the objects section names {count} objects, not 1 to {MAX_OBJECTS}")
    decoder = WideRangeDecoder(masks)
    return parse_objects_text(text, [_read_mask(decoder) for _ in range(count)])


def _read_mask(decoder: WideRangeDecoder) -> npt.NDArray[np.bool_]:
    return read_mask(decoder, MASK_SIDES[read_fixed(decoder, _SIDE_COUNTS)])
