# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel inception distance (Binkowski et al., ICLR 2018) over patches, on EfficientNet-Lite0 or VGG16's last layers.

Not comparable with published KIDs, which see whole pictures with Inception; only values from the same patches and
features are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.semantics.features import CHANNELS, FeatureNet

VGG_STRIDES = (8, 16)
"""Of the two last of VGG's blocks."""


def patches(picture: Tensor, size: int) -> Tensor:
    """``[3, H, W]`` to ``[N, 3, size, size]``: a grid from the corner, and one moved by half a patch.

    N is 0 for a picture with a side of less than ``size``.
    """
    grids = [picture.new_zeros((0, 3, size, size))]
    for offset in (0, size // 2):
        part = picture[:, offset:, offset:]
        if min(part.shape[1:]) >= size:
            tiles = part.unfold(1, size, size).unfold(2, size, size)
            grids.append(tiles.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(grids)


@torch.inference_mode()
def patch_features(net: FeatureNet, pictures: Iterable[Tensor], size: int) -> Tensor:
    """Pooled features ``[N, 1280]`` of all patches of pictures ``[3, H, W]`` 0..1, in order."""
    rows = [torch.zeros(0, CHANNELS)]
    for picture in pictures:
        cut = patches(picture, size).contiguous(memory_format=torch.channels_last)
        if len(cut):
            rows.append(net(cut).pooled)
    return torch.cat(rows)


def vgg_rows(features: Sequence[Tensor], sides: tuple[int, int], size: int) -> Tensor:
    """Means ``[N, 1024]`` of a picture's VGG features over the same patches, each row of unit mean square.

    ``features``: ``[1, C, h, w]`` of VGG's last two blocks over the whole picture of ``sides`` height and width, so that
    the features that DISTS needs serve twice (and a patch sees beyond its edges). ``size``: a multiple of 32.
    """
    rows = [torch.zeros(0, sum(f.shape[1] for f in features))]
    for offset in (0, size // 2):
        down, across = ((side - offset) // size for side in sides)
        if down > 0 and across > 0:
            means = [
                _means(f, (down, across), size // s, offset // s)
                for f, s in zip(features, VGG_STRIDES, strict=True)
            ]
            rows.append(torch.cat(means, 1))
    found = torch.cat(rows)
    return found / found.square().mean(1, keepdim=True).sqrt()


def _means(features: Tensor, counts: tuple[int, int], cells: int, offset: int) -> Tensor:
    """``[N, C]`` over a grid of ``counts`` windows of ``cells`` a side from ``offset``."""
    down, across = (offset + count * cells for count in counts)
    part = features[:, :, offset:down, offset:across].float()
    return F.avg_pool2d(part, cells)[0].flatten(1).T


def kid(a: Tensor, b: Tensor, size: int = 200, subsets: int = 40, seed: int = 1) -> tuple[float, float]:
    """Mean and deviation over random subsets of the unbiased squared distance under the cubic kernel.

    ``a, b``: ``[N, D]``, at least two rows each; subsets hold ``size`` rows, or all if there are fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(a), len(b))
    values = []
    for _ in range(subsets):
        x = a[torch.randperm(len(a), generator=generator)[:size]].double()
        y = b[torch.randperm(len(b), generator=generator)[:size]].double()
        values.append(_distance(x, y))
    found = torch.tensor(values)
    return float(found.mean()), float(found.std())


def _distance(x: Tensor, y: Tensor) -> float:
    size, width = x.shape
    xx, yy, xy = ((F.linear(p, q) / width + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    pairs = size * (size - 1)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / pairs
    return float(within - 2 * xy.mean())
