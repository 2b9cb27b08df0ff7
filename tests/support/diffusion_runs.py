# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Small runs of the diffusion model's training: a few drawn photographs, a recipe of four steps."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import torch
from pictures import synthetic
from PIL import Image
from safetensors.torch import save_file

from picogram.diffusion.rrdb import RRDBTrunk
from picogram.models import DEFAULT_LATENT, latent_weights
from training.diffusion.train import parser
from training.photos import unpack

CONFIG = {"width": 8, "growth": 4, "text_width": 16, "text_layers": 1, "vector": 16}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def photographs(root: Path) -> Path:
    """In ``root``: ``carry``, ``photos`` unpacked from it, ``flickr.tar`` and a trunk of two blocks."""
    carry = root / "carry"
    carry.mkdir()
    with tarfile.open(carry / "photos-0.tar", "w") as tar:
        for i in range(3):
            add(tar, f"large{i}.png", png(synthetic(i, 140, 130)))
    with tarfile.open(carry / "photos-1.tar", "w") as tar:
        for i in range(2):
            add(tar, f"said{i}.png", png(synthetic(10 + i, 64, 64)))
    said = {f"said{i}.png": [1.5 - i, [[1, 2], [3]]] for i in range(2)}
    (carry / "captions.json").write_text(json.dumps(said))
    embedding = torch.randint(-9, 9, (5, 576), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    save_file({"embedding": embedding, "embedding.scale": torch.ones(5)}, carry / "words.safetensors")
    unpack(carry, root / "photos", processes=1)
    rows: list[dict[str, Any]] = [
        {"file": f"{i:02d}.png", "captions": [f"number {i}"] * 6, "true_aspect": 1.5} for i in range(10)
    ]
    with tarfile.open(root / "flickr.tar", "w") as tar:
        for i, row in enumerate(rows):
            add(tar, row["file"], png(synthetic(i, 64, 64)))
        add(tar, "captions.jsonl", "\n".join(json.dumps(r) for r in rows).encode())
    torch.manual_seed(3)
    save_file(RRDBTrunk(8, 4, 2).state_dict(), root / "trunk.safetensors")
    return root


def arguments(folder: Path, out: Path, *more: str, **settings: Any) -> argparse.Namespace:
    """A run of four steps in two phases, on 64 pixels, without perceptual networks."""
    out.mkdir(exist_ok=True)
    loss = {"lpips": 0, "dists": 0}
    seen = {"crop": 64, "captioned": 0.3, "later": 0.5} | settings
    phase = {"steps": 2, "batch": 2, "lr": 1e-3, "lr_end": 1e-6, "warmup": 1, "clip": 5}
    phases = [
        phase | {"arc": [0, 0.5], "settings": seen | {"loss": loss}},
        phase | {"arc": [0.5, 1], "settings": seen | {"loss": loss | {"smooth": 1}}},
    ]
    recipe = {"model": {"blocks": 2, **CONFIG}, "task": {"fresh": 2}, "phases": phases}
    (out / "recipe.json").write_text(json.dumps(recipe))
    named = {
        "recipe": out / "recipe.json",
        "photos": folder / "photos",
        "latent": latent_weights(DEFAULT_LATENT),
        "trunk": folder / "trunk.safetensors",
        "metrics": folder,
        "out": out,
    }
    words = [word for name, path in named.items() for word in (f"--{name}", str(path))]
    return parser().parse_args([*words, "--log-every", "1", "--cpu", *more])
