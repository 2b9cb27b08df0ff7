# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What drawing does to pictures, judged by several metrics at once: the same files as base pictures and drawn.

    python -m benchmarks.judging PICTURES --out OUT.json [--bpp 0.0075 0.015 0.03 0.05] [--every 10] [--save FOLDER]

PICTURES: a folder or a tar; ``--every 10`` takes every tenth by name, which of ``photos1024.tar`` are those held out from
training. Each is encoded once a rate with profile ``base`` (whole files, budgets kept), then shown with 0 steps, 1 step
and, if asked for, more, whatever the default is at that rate. ``excess`` is detail where the original is flat, less the
original's own; KIDs are over patches of 128 pixels, by EfficientNet-Lite0 (part of the training loss) and by VGG16.
``--crop W H`` takes the middle of larger pictures. OUT is written after every picture; what it holds is not done again.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import picogram
from picogram.bench.kid import kid, patch_features, vgg_rows
from picogram.bench.measuring import Backbones, Reference, bits_per_pixel, to_tensor
from picogram.images import read_image
from picogram.metrics import weights
from picogram.metrics.perceptual import load_lpips, lpips_distance
from picogram.semantics.features import FeatureNet, load_features
from training.diffusion.losses import excess

PATCH = 128
METRICS = ("lpips_alex", "lpips_vgg", "dists", "psnr", "excess")
SUFFIXES = {".avif", ".png", ".jpg", ".jpeg", ".webp"}


def middle(image: Image.Image, size: list[int] | None) -> Image.Image:
    """Of at most ``size``, width and height."""
    if not size:
        return image
    width, height = (min(a, b) for a, b in zip(size, image.size, strict=True))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def pictures(source: Path, every: int, limit: int | None) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of a folder or a tar."""
    if source.is_dir():
        paths = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)[::every][:limit]
        yield from ((path.stem, read_image(path)) for path in paths)
        return
    with tarfile.open(source) as tar:
        members = sorted((m for m in tar if Path(m.name).suffix.lower() in SUFFIXES), key=lambda m: m.name)
        for member in members[::every][:limit]:
            file = tar.extractfile(member)
            assert file is not None
            yield Path(member.name).stem, read_image(io.BytesIO(file.read()).getvalue())


class PictureJudge:
    """All metrics against one original, whose features are computed once."""

    def __init__(self, folder: Path, half: bool = False) -> None:
        """``folder`` of the metrics' weights; ``half``: VGG computes in bfloat16."""
        self.backbones, self.second, self.half = Backbones(folder, half=half), load_lpips(folder, "vgg"), half

    @torch.inference_mode()
    def original(self, image: Image.Image) -> None:
        """What is judged from now on is a copy of this one."""
        self.x, self.reference = to_tensor(image), Reference(image, self.backbones)
        self.seen = self._second(self.x)
        self.grain = float(excess(self.x, self.x))

    def _second(self, x: Tensor) -> list[Tensor]:
        """What LPIPS by VGG compares."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            found: list[Tensor] = self.second.features((2 * x - 1 - self.second.shift) / self.second.scale)
        return [each.float() for each in found]

    @torch.inference_mode()
    def scores(self, image: Image.Image) -> dict[str, float]:
        """By the names of ``METRICS``."""
        return self._scores(image, self.backbones.vgg(to_tensor(image)))

    def _scores(self, image: Image.Image, features: list[Tensor]) -> dict[str, float]:
        y = to_tensor(image)
        return {
            "lpips_alex": self.reference.lpips(image),
            "lpips_vgg": float(lpips_distance(self.seen, self._second(y), self.second.heads)),
            "dists": self.reference.dists_of(features),
            "psnr": -10 * float((self.x - y).square().mean().log10()),
            "excess": float(excess(self.x, y)) - self.grain,
        }


class PatchJudge(PictureJudge):
    """Also the features of patches that both KIDs compare."""

    def __init__(self, folder: Path, features: FeatureNet) -> None:
        super().__init__(folder)
        self.features = features

    @torch.inference_mode()
    def original(self, image: Image.Image) -> None:
        super().original(image)
        self.patches = self._patches(image, self.backbones.vgg(self.x))

    def _patches(self, image: Image.Image, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        second = vgg_rows(features[-2:], (image.height, image.width), PATCH)
        return patch_features(self.features, [to_tensor(image)[0]], PATCH).half(), second.half()

    @torch.inference_mode()
    def judged(self, image: Image.Image) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
        """Its scores, and the features of its patches."""
        features = self.backbones.vgg(to_tensor(image))
        return self._scores(image, features), self._patches(image, features)


class JudgingRun:
    """Rows so far, and the patches for KID."""

    def __init__(self, out: Path) -> None:
        self.out, self.patches = out, out.with_suffix(".patches.pt")
        self.rows: list[dict[str, Any]] = []
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
        if out.exists() and self.patches.exists():
            self.rows = json.loads(out.read_text())["rows"]
            self.seen = torch.load(self.patches, weights_only=True)

    def has(self, name: str, bpp: float) -> bool:
        return any(r["picture"] == name and r["target"] == bpp for r in self.rows)

    def save(self) -> None:
        self.out.write_text(json.dumps({"summary": self.summary(), "rows": self.rows}) + "\n")
        torch.save(self.seen, self.patches)

    def summary(self) -> list[dict[str, Any]]:
        """Means by rate and way, and both KIDs over all pictures."""
        found = []
        for bpp, steps in sorted({(r["target"], r["steps"]) for r in self.rows}):
            rows = [r for r in self.rows if (r["target"], r["steps"]) == (bpp, steps)]
            means = {k: float(np.mean([r[k] for r in rows])) for k in ("bpp", "seconds", *METRICS)}
            pairs = zip(self.seen[f"original {bpp}"], self.seen[f"{steps} {bpp}"], strict=True)
            real, fake = (
                [torch.cat(p).float() for p in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
            )
            kids = {
                f"kid_{n}": kid(a, b)[0] for n, a, b in zip(("efficient", "vgg"), real, fake, strict=True)
            }
            found.append({"target": bpp, "steps": steps, "pictures": len(rows), **means, **kids})
        return found


def add_picture(
    run: JudgingRun, judge: PatchJudge, name: str, image: Image.Image, bpp: float, args: argparse.Namespace
) -> None:
    """One picture at one rate in every way."""
    data = picogram.encode(image, bpp=bpp)
    run.seen.setdefault(f"original {bpp}", []).append(judge.patches)
    for steps in args.steps:
        begun = time.process_time()
        drawn = picogram.decode(data, steps=steps)
        seconds = time.process_time() - begun
        metrics, patches = judge.judged(drawn)
        run.seen.setdefault(f"{steps} {bpp}", []).append(patches)
        about = {
            "picture": name,
            "target": bpp,
            "steps": steps,
            "bytes": len(data),
            "rate": picogram.inspect(data).rate,
        }
        run.rows.append(about | {"bpp": bits_per_pixel(len(data), image.size), "seconds": seconds} | metrics)
        print(name, bpp, steps, " ".join(f"{k} {v:.4f}" for k, v in metrics.items()), flush=True)
        if args.save:
            drawn.save(args.save / f"{name}-{bpp}-{steps}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.03, 0.05, 0.015, 0.0075])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--crop", type=int, nargs=2)
    parser.add_argument("--save", type=Path, help="folder for the pictures as PNG")
    args = parser.parse_args()
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
    judge, run = PatchJudge(weights.require(), load_features()), JudgingRun(args.out)
    for bpp in args.bpp:
        for name, whole in pictures(args.pictures, args.every, args.limit):
            if not run.has(name, bpp):
                image = middle(whole, args.crop)
                judge.original(image)
                add_picture(run, judge, name, image, bpp, args)
                run.save()
    for row in run.summary():
        print(" ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
