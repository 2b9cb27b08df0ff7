# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""LPIPS (alex), DISTS, MS-SSIM, PSNR and, where asked for, meaning of many decoded pictures against one original.

The backbones' features of the original are computed once; a decoded picture that was measured before is not
measured again (over-budget files are the same at several budgets).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from picogram.bench.semantic import Meaning
from picogram.metrics.fidelity import ms_ssim, psnr
from picogram.metrics.perceptual import dists_distance, load_dists, load_lpips, lpips_distance

METRICS = ("lpips", "dists", "ms_ssim", "psnr")
LOWER_IS_BETTER = frozenset({"lpips", "dists"})


def to_tensor(image: Image.Image) -> Tensor:
    """``[1, 3, H, W] float32 0..1``, channels last (twice as fast on CPUs)."""
    tensor = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    return tensor.contiguous(memory_format=torch.channels_last)


class Backbones:
    """The two networks, loaded once per run from the folder of ``picogram.metrics.weights``."""

    def __init__(self, folder: Path, half: bool = False) -> None:
        """``half``: VGG in bfloat16, fast where the processor has it; DISTS moves by about 0.0001, for all alike."""
        self.half = half
        self.lpips = load_lpips(folder, "alex")
        self.dists = load_dists(folder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def alex(self, x: Tensor) -> list[Tensor]:
        scaled = (2 * x - 1 - self.lpips.shift) / self.lpips.scale
        return self.lpips.features(scaled)  # type: ignore[no-any-return]

    def vgg(self, x: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, self.half):
            return [x, *self.dists.features((x - self.dists.mean) / self.dists.std)]


class Reference:
    """One original and what is known about it."""

    def __init__(self, image: Image.Image, backbones: Backbones, meaning: Meaning | None = None) -> None:
        """``meaning``: what compares meanings with ``image``; None: nobody asks for them."""
        self.image = image
        self._networks = backbones
        self._meaning = meaning
        self._alex: list[Tensor] | None = None
        self._vgg: list[Tensor] | None = None
        self._known: dict[tuple[str, str], float] = {}

    def _once(self, metric: str, decoded: Image.Image) -> float:
        key = metric, hashlib.sha256(decoded.tobytes()).hexdigest()
        if key not in self._known:
            with torch.inference_mode():
                self._known[key] = getattr(self, f"_{metric}")(decoded)
        return self._known[key]

    def lpips(self, decoded: Image.Image) -> float:
        """LPIPS v0.1 (alex), lower is better."""
        return self._once("lpips", decoded)

    def metrics(self, decoded: Image.Image) -> dict[str, float]:
        """All of ``METRICS``, then those of ``meaning``; MS-SSIM is nan for small pictures."""
        found = {metric: self._once(metric, decoded) for metric in METRICS}
        return found | self._meaning(decoded) if self._meaning else found

    def _lpips(self, decoded: Image.Image) -> float:
        self._alex = self._alex or self._networks.alex(to_tensor(self.image))
        heads = self._networks.lpips.heads
        return float(lpips_distance(self._alex, self._networks.alex(to_tensor(decoded)), heads))

    def _dists(self, decoded: Image.Image) -> float:
        return self.dists_of(self._networks.vgg(to_tensor(decoded)))

    def dists_of(self, features: list[Tensor]) -> float:
        """DISTS from what ``Backbones.vgg`` gave for a decoded picture."""
        self._vgg = self._vgg or self._networks.vgg(to_tensor(self.image))
        networks = self._networks
        return float(dists_distance(self._vgg, features, networks.dists.alpha, networks.dists.beta))

    def _ms_ssim(self, decoded: Image.Image) -> float:
        return ms_ssim(self.image, decoded)

    def _psnr(self, decoded: Image.Image) -> float:
        return min(psnr(self.image, decoded), 100.0)


def bits_per_pixel(file_bytes: int, size: tuple[int, int]) -> float:
    """Every byte of the file over the pixels of the original."""
    return 8 * file_bytes / (size[0] * size[1])


def budget_bytes(bpp: float, size: tuple[int, int]) -> int:
    """The most bytes a file of that rate may have."""
    return math.floor(bpp * size[0] * size[1] / 8)
