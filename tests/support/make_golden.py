# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the golden files of the latent model, once: ``python tests/support/make_golden.py``.

A golden file never changes afterwards: files that are there already are kept, and a new model id or format version adds
files beside them. The manifest keeps, for each, its hash, the hash of its decoded latent (int32 little-endian, row by
row, channels last, in 1/256 steps) and a thumbnail of the base picture.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
from pictures import resized, synthetic
from PIL import Image
from skimage import data

import picogram
from picogram.bitstream import parse
from picogram.latent.codec import load_codec
from picogram.latent.coding import decode_latents
from picogram.models import DEFAULT_LATENT

GOLDEN = Path(__file__).parents[1] / "golden"
THUMBNAIL = (4, 4)


def latent_hash(file: bytes) -> str:
    """SHA-256 of the decoded latent of a file."""
    return hashlib.sha256(latent_integers(file).astype("<i4").tobytes()).hexdigest()


def latent_integers(file: bytes) -> np.ndarray:
    """``[h, w, C]`` in 1/256 steps."""
    picogram_ = parse(file)
    width, height = picogram_.header.coded_size
    codec = load_codec(picogram_.header.model)
    section = picogram_.latent
    y = decode_latents(codec.prior, [section[1:]], [section[0]], -(-height // 16), -(-width // 16))
    return (y[0].permute(1, 2, 0) * 256).long().numpy()


def thumbnail(picture: Image.Image) -> list[int]:
    """A 4x4 picture as a flat list: enough to notice a wrong decoder, robust to rounding."""
    return np.asarray(picture.resize(THUMBNAIL, Image.Resampling.BOX)).flatten().tolist()


def files() -> dict[str, bytes]:
    """Profile base, and taco with a caption, with none, and with a focus."""
    encode = partial(picogram.encode, profile="taco", caption="")
    corner = np.zeros((8, 8), bool)
    corner[:4, 4:] = True
    return {
        "astronaut-0.03bpp": picogram.encode(resized(data.astronaut(), 512, 512), bpp=0.03),
        "chelsea-q0": picogram.encode(resized(data.chelsea(), 451, 300), quality=0),
        "astronaut-caption": encode(
            resized(data.astronaut(), 512, 512), bpp=0.03, caption="An astronaut in an orange suit."
        ),
        "chelsea-silent": encode(resized(data.chelsea(), 451, 300), bpp=0.03),
        "chelsea-q100": encode(resized(data.chelsea(), 201, 150), quality=100),
        "coffee-90bytes": encode(resized(data.coffee(), 600, 400), bytes=90, caption="A cup of coffee."),
        "coffee-focus": encode(resized(data.coffee(), 600, 400), bytes=700, focus=corner),
        "rocket-strip": encode(resized(data.rocket(), 640, 33), quality=50),
        "noise-17x15": encode(synthetic(4, 17, 15), quality=80),
        "pixel": encode(Image.new("RGB", (1, 1), (200, 30, 90)), quality=40),
    }


def main() -> None:
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    for name, file in files().items():
        path = GOLDEN / f"m{DEFAULT_LATENT}-{name}.pico"
        if path.exists():
            continue
        path.write_bytes(file)
        manifest[path.name] = {
            "sha256": hashlib.sha256(file).hexdigest(),
            "latent_sha256": latent_hash(file),
            "size": list(picogram.decode(file, steps=0).size),
            "thumbnail": thumbnail(picogram.decode(file, steps=0)),
        }
    (GOLDEN / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
