# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write what golden files of every profile look like when they are drawn: ``python tests/support/make_golden_drawn.py``.

The files are golden for good; the pictures belong to a diffusion model and are made again with a new one. Each is a
window of the picture that ``picogram.decode`` gives by default, as lossless WebP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pictures import resized
from PIL import Image
from skimage import data

import picogram
from picogram.models import DEFAULT_DIFFUSION

GOLDEN: Final = Path(__file__).parents[1] / "golden"
DRAWN: Final = GOLDEN / "drawn"
FILES: Final = {
    "base": GOLDEN / "m2-astronaut-0.03bpp.pico",
    "stc": GOLDEN / "words" / "t1-rocket-caption.pico",
    "misc": GOLDEN / "words" / "t1-chelsea-misc.pico",
    "sedic": GOLDEN / "words" / "t1-rocket-sedic.pico",
    "taco": DRAWN / "m2-coffee-taco.pico",
}
WINDOW: Final = (160, 128)


def window(picture: Image.Image) -> Image.Image:
    """The middle of a picture."""
    left, top = (picture.width - WINDOW[0]) // 2, (picture.height - WINDOW[1]) // 2
    return picture.crop((left, top, left + WINDOW[0], top + WINDOW[1]))


def drawn(profile: str) -> Path:
    """Where the picture of a profile lies."""
    return DRAWN / f"d{DEFAULT_DIFFUSION}-{profile}.webp"


def main() -> None:
    DRAWN.mkdir(exist_ok=True)
    if not FILES["taco"].exists():
        photo = resized(data.coffee(), 384, 256)
        FILES["taco"].write_bytes(picogram.encode(photo, bytes=400, profile="taco"))
    for profile, file in FILES.items():
        picture = window(picogram.decode(file.read_bytes()))
        picture.save(drawn(profile), lossless=True, method=6)
        print(profile, drawn(profile).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
