# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel inception distance (Binkowski et al., ICLR 2018) over patches, on EfficientNet-Lite0 instead of Inception.

Not comparable with published KIDs; only values from the same patches and features are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from picogram.semantics.features import FeatureNet


def patches(picture: Tensor, size: int) -> Tensor:
    """``[3, H, W]`` to ``[N, 3, size, size]``: a grid from the corner, and one moved by half a patch."""
    grids = []
    for offset in (0, size // 2):
        part = picture[:, offset:, offset:]
        if min(part.shape[1:]) >= size:
            tiles = part.unfold(1, size, size).unfold(2, size, size)
            grids.append(tiles.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(grids)


@torch.inference_mode()
def patch_features(net: FeatureNet, pictures: Iterable[Tensor], size: int) -> Tensor:
    """Pooled features ``[N, 1280]`` of all patches of pictures ``[3, H, W]`` 0..1, in order."""
    rows = [net(patches(p, size).contiguous(memory_format=torch.channels_last)).pooled for p in pictures]
    return torch.cat(rows)


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
