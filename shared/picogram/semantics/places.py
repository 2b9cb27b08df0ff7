# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where a picture shows what words name: a map from the joint image-text space. Floating point, for encoding only.

picture ── cells of about equal size ── cosine with the words, less that with any words ── highest cells ──> Focus
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image

from picogram.latent.focus import Focus
from picogram.semantics.joint import Joint, similarity

SIDE: Final = 10
"""Cells along a side: things half as large as in training are told apart, and smaller ones not."""
ANY: Final = ("a photo", "the background", "a place")
_LEVEL: Final = 0.5


def place(joint: Joint, picture: Image.Image, words: str) -> Focus:
    """The map of an RGB picture; some of it is always in focus, for nobody knows whether the words fit at all."""
    cells = joint.image_map(picture, SIDE)
    scores = similarity(cells, joint.text([words, *ANY]))
    evidence = scores[..., 0] - scores[..., 1:].mean(-1)
    low, high = torch.quantile(evidence, 0.5), evidence.max()
    weights = ((evidence - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    soft = ((weights - _LEVEL) / (1 - _LEVEL) * 2).clamp(0, 1)
    return Focus.of(np.asarray(soft.numpy(), np.float32))
