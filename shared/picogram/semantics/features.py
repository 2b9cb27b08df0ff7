# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Image features: EfficientNet-Lite0 (ImageNet, 1,000 classes) for inference, in plain torch.

    PIL image ── preprocess ──> [3,S,S] 0..1 ── stem /2 ── 16 inverted residual blocks /16 ── head ─┬─> spatial
                                                                                                    ├─> pooled
    The published weights, batch norms folded into the convolutions                                 └─> logits

Lite means: ReLU6 throughout and no squeeze-and-excitation, so every step is a convolution. For the captioner a photo
is squashed to a square, as the training photos were: one function serves training and use, whatever the aspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from picogram.errors import ModelDamaged
from picogram.models.store import features_file

SIDE: Final = 224
"""Side of the square that the captioner sees, in pixels."""
CHANNELS: Final = 1280
CLASSES: Final = 1000

_NORM_EPSILON: Final = 1e-3
# (expansion, output channels, blocks, stride of the first, kernel side)
_STAGES: Final = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM: Final = 32


@dataclass(frozen=True)
class Features:
    """``spatial [B,1280,h,w]``, 0..6, h and w a thirty-second of the input's sides, rounded up; ``pooled [B,1280]``,
    its mean over positions; ``logits [B,1000]``."""

    spatial: Tensor
    pooled: Tensor
    logits: Tensor

    def tokens(self, side: int) -> Tensor:
        """``[B,side*side,1280]``: means over a ``side`` by ``side`` grid of (overlapping) windows, row by row."""
        return F.adaptive_avg_pool2d(self.spatial, side).flatten(2).transpose(1, 2)


def preprocess(image: Image.Image, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """An "RGB" image of any aspect, squashed to ``[3,height,width] float32 0..1`` (bicubic with antialias).

    ``size`` is width and height in pixels.
    """
    pixels = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8))
    return pixels.permute(2, 0, 1).float().div_(255)


class FeatureNet(nn.Module):
    """EfficientNet-Lite0 in evaluation mode.

    ``tensors`` is the published state dict (``_blocks.0._depthwise_conv.weight`` and so on). Raises ModelDamaged
    when a tensor is missing or has the wrong shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _Conv(tensors, "_conv_stem", "_bn0", (_STEM, 3, 3, 3), stride=2)
        self.blocks = nn.Sequential()
        width = _STEM
        for expansion, out, depth, stride, kernel in _STAGES:
            for index in range(depth):
                prefix = f"_blocks.{len(self.blocks)}."
                step = stride if index == 0 else 1
                self.blocks.append(_Block(tensors, prefix, (width, expansion, out), kernel, step))
                width = out
        self.head = _Conv(tensors, "_conv_head", "_bn1", (CHANNELS, width, 1, 1))
        self.register_buffer("class_weight", _take(tensors, "_fc.weight", (CLASSES, CHANNELS)).float())
        self.register_buffer("class_bias", _take(tensors, "_fc.bias", (CLASSES,)).float())
        self.requires_grad_(False)
        self.eval()

    class_weight: Tensor
    class_bias: Tensor

    def forward(self, pixels: Tensor) -> Features:
        """``pixels [B,3,H,W] float 0..1`` of any size. Gradients flow to ``pixels``, never to the weights."""
        spatial = self.head(self.blocks(self.stem(2 * pixels - 1)))
        pooled = spatial.mean((2, 3))
        return Features(spatial, pooled, F.linear(pooled, self.class_weight, self.class_bias))


def load_features() -> FeatureNet:
    """The pulled weights, one network per process for all who look at pictures. ModelMissing or ModelDamaged."""
    return _network(features_file())


@lru_cache(maxsize=1)
def _network(path: Path) -> FeatureNet:
    return FeatureNet(load_file(path))


class _Conv(nn.Module):
    """Convolution with its batch norm folded in, then ReLU6; padded like TensorFlow's "same"."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        name: str,
        norm: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        weight = _take(tensors, f"{name}.weight", shape).double()
        scale, shift, mean, variance = (
            _take(tensors, f"{norm}.{part}", shape[:1]).double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / torch.sqrt(variance + _NORM_EPSILON)
        self.register_buffer("weight", (weight * gain.view(-1, 1, 1, 1)).float())
        self.register_buffer("bias", (shift - mean * gain).float())
        self.stride, self.active = stride, active
        self.depthwise = shape[1] == 1

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[2]
        groups = x.shape[1] if self.depthwise else 1
        padding = kernel // 2
        if self.stride > 1:  # the odd pixel of padding goes below and to the right
            (top, bottom), (left, right) = (_same(side, kernel, self.stride) for side in x.shape[2:])
            x, padding = F.pad(x, (left, right, top, bottom)), 0
        out = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=groups)
        return F.relu6(out) if self.active else out


class _Block(nn.Module):
    """Inverted residual: widen, convolve each channel, narrow; added to the input where the shape stays."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        prefix: str,
        widths: tuple[int, int, int],
        kernel: int,
        stride: int,
    ) -> None:
        super().__init__()
        width, expansion, out = widths
        inner = width * expansion
        self.steps = nn.Sequential()
        if expansion > 1:
            self.steps.append(_Conv(tensors, f"{prefix}_expand_conv", f"{prefix}_bn0", (inner, width, 1, 1)))
        shape = (inner, 1, kernel, kernel)
        self.steps.append(_Conv(tensors, f"{prefix}_depthwise_conv", f"{prefix}_bn1", shape, stride=stride))
        shape = (out, inner, 1, 1)
        self.steps.append(_Conv(tensors, f"{prefix}_project_conv", f"{prefix}_bn2", shape, active=False))
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.steps(x)
        return x + out if self.residual else out


def _same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after so that the output has ``ceil(side / stride)`` positions."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _take(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in tensors or tuple(tensors[name].shape) != shape:
        raise ModelDamaged(f"the image feature weights lack {name} of shape {list(shape)}")
    return tensors[name]
