# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Small parts of a joint space: features of colours only, and random heads over them and the tests' language model."""

from __future__ import annotations

import byte_lm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picogram.semantics.features import CHANNELS, CLASSES, Features
from picogram.semantics.joint import JointConfig, JointHeads

CONFIG = JointConfig(layers=1, text_width=byte_lm.CONFIG.width, image_hidden=24, text_hidden=24, width=16)


class Colours(nn.Module):
    """In the place of a FeatureNet: what is seen in a cell is a random function of its mean colour."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("mix", torch.randn(CHANNELS, 3, generator=generator))

    mix: Tensor

    def forward(self, pixels: Tensor) -> Features:
        means = F.avg_pool2d(pixels, 32)
        spatial = F.relu6(torch.einsum("oc,bchw->bohw", self.mix, 4 * means))
        return Features(spatial, spatial.mean((2, 3)), pixels.new_zeros(len(pixels), CLASSES))


def heads(seed: int = 1, config: JointConfig = CONFIG) -> JointHeads:
    """Untrained heads."""
    torch.manual_seed(seed)
    return JointHeads(config)
