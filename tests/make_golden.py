# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the golden files of a latent model, once: ``python tests/make_golden.py ID``.

A golden file never changes afterwards; a new model id or format version adds files beside the old ones, and files that
are there are refused. The manifest
keeps, for each, its hash, the hash of its decoded latent (int32 little-endian, row by row, channels last, in 1/256
steps) and a thumbnail of the decoded picture.
"""

from __future__ import annotations

import hashlib
import json
import sys
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

GOLDEN = Path(__file__).parent / "golden"
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


def files_of_model_1() -> dict[str, bytes]:
    """Profile base."""
    return {
        "astronaut-0.03bpp": picogram.encode(resized(data.astronaut(), 512, 512), bpp=0.03),
        "chelsea-q0": picogram.encode(resized(data.chelsea(), 451, 300), quality=0),
        "chelsea-q100": picogram.encode(resized(data.chelsea(), 201, 150), quality=100),
        "coffee-90bytes": picogram.encode(resized(data.coffee(), 600, 400), bytes=90),
        "rocket-strip": picogram.encode(resized(data.rocket(), 640, 33), quality=50),
        "noise-17x15": picogram.encode(synthetic(4, 17, 15), quality=80),
        "pixel": picogram.encode(Image.new("RGB", (1, 1), (200, 30, 90)), quality=40),
    }


def files_of_model_2() -> dict[str, bytes]:
    """Profile taco: with a caption, with none, and with a focus."""
    encode = partial(picogram.encode, profile="taco", caption="")
    corner = np.zeros((8, 8), bool)
    corner[:4, 4:] = True
    return {
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


FILES = {1: files_of_model_1, 2: files_of_model_2}


def main() -> None:
    model = int(sys.argv[1])
    if any(GOLDEN.glob(f"m{model}-*.pico")):
        sys.exit(f"there are golden files of model {model}: they stay as they are")
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    for name, file in FILES[model]().items():
        path = GOLDEN / f"m{model}-{name}.pico"
        path.write_bytes(file)
        manifest[path.name] = {
            "sha256": hashlib.sha256(file).hexdigest(),
            "latent_sha256": latent_hash(file),
            "size": list(picogram.decode(file).size),
            "thumbnail": thumbnail(picogram.decode(file)),
        }
    (GOLDEN / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
