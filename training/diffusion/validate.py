# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Base pictures against restored ones, by steps and by caption: DISTS, LPIPS (alex), PSNR, patch KID, seconds.

    python -m training.diffusion.validate RUN/last.pt --photos flickr8k.tar --metrics WEIGHTS --features NET \\
        --json OUT.json [--kodak FOLDER --captions CSV]

Photographs are of the tar's last tenth by name, coded at ``--bpp``, each with its first caption, with none, and with
another photograph's.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from picogram.bench.kid import kid, patch_features, patches
from picogram.diffusion.denoiser import BasePicture
from picogram.diffusion.denoiser import Item as SamplerItem
from picogram.diffusion.embedded import EmbeddedDenoiser
from picogram.diffusion.model import DiffusionNet
from picogram.diffusion.sampler import restore
from picogram.diffusion.stages import Stage
from picogram.latent.codec import PhotoCodec, load_codec
from picogram.latent.exact_prior import RATE_COUNT
from picogram.metrics.perceptual import Dists, Lpips, dists_distance, load_dists, load_lpips
from picogram.semantics.features import FeatureNet
from training.diffusion.pairs import captioned_photos, unsquashed

HEADER_BYTES = 12
"""Of a file beside its latent section, about."""


@dataclass(frozen=True)
class Item:
    """A picture, what a decoder has of it, and a caption."""

    original: Tensor
    base: BasePicture
    caption: str
    bpp: float


@dataclass(frozen=True)
class Case:
    """One way to restore: ``caption`` is correct, empty or shuffled; no steps: the base picture as it is."""

    steps: int
    caption: str = "empty"
    guidance: float = 1.0


def to_item(codec: PhotoCodec, picture: npt.NDArray[np.uint8], caption: str, bpp: float) -> Item:
    """The finest rate whose file has at most ``bpp`` bits per pixel, or the coarsest."""
    height, width = picture.shape[:2]
    analysed, room = codec.analyse(picture), bpp * height * width / 8 - HEADER_BYTES
    low, high = 0, RATE_COUNT - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if codec.estimate(analysed, middle) <= room else (low, middle - 1)
    section = codec.section(analysed, low)
    latent, rate = codec.latent(section, width, height)
    base = BasePicture(_tensor(codec.synthesise(latent, rate, width, height)), latent[0].clone(), rate)
    spent = 8 * (len(section) + HEADER_BYTES) / (height * width)
    return Item(_tensor(picture), base, caption, spent)


def _tensor(picture: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div_(255)


class Meter:
    """Metrics of pictures against their originals, whose features are computed once."""

    def __init__(self, metrics: Path, features: FeatureNet, items: Sequence[Item], patch: int) -> None:
        self.lpips: Lpips = load_lpips(metrics).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dists: Dists = load_dists(metrics).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features, self.items, self.patch = features, items, patch
        self.real = patch_features(features, (item.original for item in items), patch)
        self.real_vgg = self._vgg(item.original for item in items)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Tensor]) -> dict[str, float]:
        """``pictures [3, H, W]`` 0..1, in the order of the items."""
        rows = [self._one(item.original[None], p[None]) for item, p in zip(self.items, pictures, strict=True)]
        means = np.mean(rows, 0)
        distance, spread = kid(self.real, patch_features(self.features, pictures, self.patch))
        second, _ = kid(self.real_vgg, self._vgg(pictures))
        names = ("dists", "lpips", "psnr")
        found = dict(zip(names, means.tolist(), strict=True))
        return found | {"kid": distance, "kid_deviation": spread, "kid_vgg": second}

    @torch.inference_mode()
    def _vgg(self, pictures: Iterable[Tensor]) -> Tensor:
        """Means of VGG's last two blocks over each patch, unit variance: a network that ``moments`` did not train on."""
        rows = []
        for picture in pictures:
            x = patches(picture, self.patch).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                deep = self.dists.features((x - self.dists.mean) / self.dists.std)[-2:]
            means = torch.cat([f.float().mean((2, 3)) for f in deep], 1)
            rows.append(means / means.square().mean(1, keepdim=True).sqrt())
        return torch.cat(rows)

    def _one(self, x: Tensor, y: Tensor) -> tuple[float, float, float]:
        dists = self.dists
        with torch.autocast("cpu", torch.bfloat16):
            fx, fy = (dists.features((v - dists.mean) / dists.std) for v in (x, y))
        found = dists_distance([x, *fx], [y, *fy], dists.alpha, dists.beta)
        psnr = -10 * float((x - y).square().mean().log10())
        return float(found), float(self.lpips(x, y)), psnr


class Restorer:
    """A network for items one by one."""

    def __init__(self, net: DiffusionNet, items: Sequence[Item]) -> None:
        self.denoiser, self.items = EmbeddedDenoiser(net), items

    def __call__(self, case: Case) -> tuple[list[Tensor], float]:
        """Pictures rounded to bytes, and seconds of processor time a picture."""
        if not case.steps:
            return [item.base.pixels for item in self.items], 0.0
        begun = time.process_time()
        pictures = [self._one(i, case) for i in range(len(self.items))]
        return pictures, (time.process_time() - begun) / len(pictures)

    def _one(self, index: int, case: Case) -> Tensor:
        which = (index + len(self.items) // 2) % len(self.items) if case.caption == "shuffled" else index
        prompt = "" if case.caption == "empty" else self.items[which].caption
        stage = Stage(prompt, steps=case.steps, guidance=case.guidance, seed=1)
        (found,) = restore(self.denoiser, [SamplerItem(self.items[index].base, [stage])])
        assert isinstance(found, Tensor)
        return found.mul(255).round().div(255)


def load_net(path: Path) -> tuple[DiffusionNet, int]:
    """Averaged weights of a checkpoint (``.pt``) or of a file of weights; and the samples seen (0: unknown)."""
    net = DiffusionNet()
    samples = 0
    if path.suffix == ".pt":
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights, samples = state["average"], state["samples"]
    else:
        weights = load_file(path)
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last), samples  # type: ignore[call-overload]


def measure(restorer: Restorer, meter: Meter, cases: Iterable[Case]) -> list[dict[str, Any]]:
    """One row a case, printed as it comes."""
    rows = []
    for case in cases:
        pictures, seconds = restorer(case)
        row = vars(case) | meter(pictures) | {"cpu_seconds": seconds}
        rows.append(row)
        shown = " ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print(shown, flush=True)
    return rows


def photo_items(codec: PhotoCodec, tar: Path, limit: int, bpp: float) -> list[Item]:
    _, held = captioned_photos(tar)
    chosen = held[:: max(1, len(held) // limit)][:limit]
    items = []
    for photo in chosen:
        size = (192, 256) if photo.aspect >= 1 else (256, 192)
        picture = unsquashed(photo.data, *size)
        items.append(to_item(codec, picture, photo.captions[0], bpp))
    return items


def kodak_items(codec: PhotoCodec, folder: Path, captions: Path | None, limit: int, bpp: float) -> list[Item]:
    texts = dict[str, str]()
    if captions is not None:
        with captions.open(newline="", encoding="utf-8") as file:
            texts = {r["image_name"]: r["overall_description"].strip() for r in csv.DictReader(file)}
    items = []
    for path in sorted(folder.glob("*.png"))[:limit]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        items.append(to_item(codec, picture, texts.get(path.name, ""), bpp))
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="safetensors of EfficientNet-Lite0")
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--captions", type=Path, help="CSV with image_name and overall_description")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--bpp", type=float, default=0.03)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--guidance", type=float, nargs="*", default=[])
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    net, samples = load_net(args.weights)
    codec = load_codec()
    features = FeatureNet(load_file(args.features)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    report: dict[str, Any] = {"weights": args.weights.name, "samples": samples}
    sets = {"photos": (photo_items(codec, args.photos, args.limit, args.bpp), 96)}
    if args.kodak:
        sets["kodak"] = (kodak_items(codec, args.kodak, args.captions, args.limit, args.bpp), 128)
    for name, (items, patch) in sets.items():
        bpp = float(np.mean([item.bpp for item in items]))
        meter = Meter(args.metrics, features, items, patch)
        print(
            f"{name}: {len(items)} pictures at {bpp:.4f} bpp, {len(meter.real)} patches of {patch}",
            flush=True,
        )
        cases = [Case(0), *(Case(s) for s in args.steps)]
        cases += [Case(args.steps[-1], caption) for caption in ("correct", "shuffled")]
        cases += [Case(args.steps[-1], "correct", g) for g in args.guidance]
        rows = measure(Restorer(net, items), meter, cases)
        report[name] = {"bpp": bpp, "patches": len(meter.real), "rows": rows}
    args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
