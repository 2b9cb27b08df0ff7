# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captioners without a model, for words without a language model."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from picogram.semantics.description import Description, Region

CAPTION = "A woman in an orange suit stands before a flag."


class Says:
    """A captioner that says the same of every picture."""

    def __init__(self, caption: str, objects: tuple[Region, ...] = ()) -> None:
        self.description = Description(caption, objects)

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [self.description for _ in pictures]


class Fails:
    """A captioner that cannot do it; with ``size``, only for pictures of that size."""

    def __init__(self, error: Exception, size: tuple[int, int] | None = None) -> None:
        self.error, self.size = error, size

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        if self.size is None or self.size in [picture.size for picture in pictures]:
            raise self.error
        return [Description(CAPTION) for _ in pictures]
