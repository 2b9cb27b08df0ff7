# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What matters most, on the command line: words, or an image that is bright where it matters.

image file ── given_focus ──> weights [h, w] 0..1 ── mask_of_weights ──> mask [32, 32], for servers
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from picogram.errors import ImageError, UsageError
from picogram.images import DEFAULT_LIMITS, read_image
from picogram.ranges import MAX_MAP_SIDE
from picogram.request import check_focus
from picogram.semantics.plain import Mask

Weights = npt.NDArray[np.float32]
MASK_SIDE: Final = 32
"""Of a mask that is sent to a server."""


def given_focus(words: str | None, file: Path | None) -> str | Weights | None:
    """The words of --focus, or the weights of the image of --focus-mask.

    Raises UsageError if both are given, for words that name nothing, and for a file that is no image, has too many
    pixels or is the same everywhere.
    """
    if words is not None and file is not None:
        raise UsageError("give at most one of --focus and --focus-mask")
    if words is not None:
        check_focus(words)
        return words
    if file is None:
        return None
    try:
        picture = read_image(file, limits=replace(DEFAULT_LIMITS, max_side=MAX_MAP_SIDE)).convert("L")
    except (ImageError, UsageError) as error:
        raise UsageError(f"{file}: {error}") from error
    low, high = picture.getextrema()
    if low == high:
        raise UsageError(f"{file}: nothing matters most, for it is equally bright everywhere")
    return np.asarray(picture, np.float32) / np.float32(255)


def mask_of_weights(weights: Weights) -> Mask:
    """The cells that matter at least half as much as the one that matters most.

    Raises UsageError where that is all of them.
    """
    cells = Image.fromarray(weights).resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX)
    means = np.asarray(cells)
    mask: Mask = means >= means.max() / 2
    if mask.all():
        raise UsageError(
            f"the focus mask tells a server nothing: all of its {MASK_SIDE}x{MASK_SIDE} cells matter"
        )
    return mask
