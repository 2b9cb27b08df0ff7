# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What decoded pictures still mean: cosines in a joint image-text space, in the place of CLIP scores.

    original ──┐
    caption  ──┴─ Semantic.against ──> Meaning ── each decoded picture ──> {"semantic": ..., "agreement": ...}

The embedded space needs no hub, and its values are its own: they compare pictures with each other, not with the CLIP
scores of papers. Profile ``taco`` is trained with the embedded space, which flatters its scores there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from picogram.semantics.joint import JointSpace, load_joint, similarity

SEMANTIC, AGREEMENT = "semantic", "agreement"
MEANING: Final[Mapping[str, str]] = {
    SEMANTIC: "cosine of the original's vector and the decoded picture's, higher is better",
    AGREEMENT: "cosine of the caption's vector and the decoded picture's, higher is better",
}


class Semantic:
    """One joint space for all pictures of a run; ``name`` goes into reports, for values of two spaces do not compare."""

    def __init__(self, joint: JointSpace | None = None) -> None:
        """``joint``: None: the embedded space. Raises ModelMissing, ModelDamaged with the command that helps."""
        self._joint = joint or load_joint()

    @property
    def name(self) -> str:
        return self._joint.name

    def against(self, original: Image.Image, caption: str | None = None) -> Meaning:
        """``original``: RGB, any size. ``caption``: what it shows, if that is known."""
        said = caption if caption and caption.strip() else None
        text = None if said is None else self._joint.text([said])
        return Meaning(self._joint, self._joint.image([original]), text)


class Meaning:
    """One original, to compare with."""

    def __init__(self, joint: JointSpace, image: Tensor, text: Tensor | None) -> None:
        """``image [1, D]``, ``text [1, D]``: unit vectors of ``joint``."""
        self._joint, self._image, self._text = joint, image, text

    @torch.inference_mode()
    def __call__(self, decoded: Image.Image) -> dict[str, float]:
        """The keys of ``MEANING``, each -1..1; agreement is nan without a caption. ``decoded``: RGB, any size."""
        seen = self._joint.image([decoded])
        agreement = math.nan if self._text is None else float(similarity(seen, self._text))
        return {SEMANTIC: float(similarity(seen, self._image)), AGREEMENT: agreement}
