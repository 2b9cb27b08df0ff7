# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the golden text sections and files with words of a text model: ``python tests/support/make_golden_words.py``.

They never change afterwards: files that are there already are kept. ``words.json`` keeps sections with their texts, and
for each file its hash, that of its decoded latent, and what it says.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from make_golden import latent_hash
from pictures import resized
from skimage import data

import picogram
from picogram.bitstream import Picogram, Profile, parse, serialise
from picogram.semantics.description import Description, Region
from picogram.semantics.words import default_words
from picogram.text.coder import TextCoder
from picogram.text.lm.loading_lm import load_lm_coder

FOLDER = Path(__file__).parents[1] / "golden" / "words"
SECTIONS = {
    "short": "A brown dog runs through the grass .",
    "dense": "The image features a red barn in a green field. A wooden fence is visible in the background.",
    "plain": "Ünïcode: 東京, שלום, 🙂‍↕️ and 3.14159",
    "objects": "dog: brown; ball",
    "plain/newlines": "two\nlines\n",
    "static": "A man in a red shirt rides a bicycle.",
    "raw": "\x00\x07 control",
}


def sections() -> dict[str, dict[str, str]]:
    """One section for each coder and prompt."""
    coder, found = TextCoder(load_lm_coder()), {}
    for name, text in SECTIONS.items():
        kind = name.split("/")[0]
        alone = kind in ("static", "raw")
        [coded] = coder.encode(
            [text], coders=(kind,) if alone else ("exact-lm",), kinds=None if alone else (kind,)
        )
        found[name] = {"text": text, "section": coded.section.hex()}
    return found


def files() -> dict[str, bytes]:
    """Files with words: captions, and a caption with objects."""
    words = default_words()
    chelsea, rocket = resized(data.chelsea(), 451, 300), resized(data.rocket(), 640, 427)
    plain = picogram.encode_detailed(
        chelsea, bytes=420, profile="stc", caption="A cat looks at the camera ."
    ).data
    sent = picogram.encode_detailed(
        rocket, bytes=900, profile="stc", caption="A rocket stands on its launch pad."
    )
    mask = np.zeros((8, 8), bool)
    mask[1:7, 2:6] = True
    description = Description(
        "A cat.", (Region("cat", "orange, with green eyes", mask), Region("wall", "", ~mask))
    )
    [coded] = words.code([description])
    parsed = parse(plain)
    header = type(parsed.header)(
        Profile.SEDIC, *(getattr(parsed.header, n) for n in ("width", "height", "model", "halvings"))
    )
    named = picogram.encode(
        chelsea,
        bytes=500,
        profile="misc",
        caption="A cat looks at the camera.",
        objects=[Region("cat", "orange, with green eyes", mask), Region("wall", "", ~mask)],
    )
    masked = picogram.encode(
        rocket,
        bytes=700,
        profile="sedic",
        caption="A rocket stands on its launch pad.",
        objects=[
            Region("rocket", "white, upright", ellipse(16, 0.5, 0.55, 0.12, 0.42)),
            Region("sky", "dark blue", ~ellipse(32, 0.5, 0.9, 0.8, 0.3)),
        ],
    )
    return {
        "t1-chelsea-misc.pico": named,
        "t1-rocket-sedic.pico": masked,
        "t1-chelsea-caption.pico": plain,
        "t1-rocket-caption.pico": sent.data,
        "t1-chelsea-objects.pico": serialise(Picogram(header, parsed.latent, coded.optional)),
    }


def ellipse(side: int, x: float, y: float, width: float, height: float) -> npt.NDArray[np.bool_]:
    """A mask ``[side,side]``; places and sizes are parts of the picture."""
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    inside: npt.NDArray[np.bool_] = ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2 < 1
    return inside


def said(file: bytes) -> dict[str, object]:
    """What a file says, as the manifest keeps it."""
    [read] = default_words().read([parse(file)])
    assert read.description is not None
    assert not read.warnings
    objects = [
        [r.name, r.detail, len(r.mask), np.packbits(r.mask).tobytes().hex()] for r in read.description.objects
    ]
    return {
        "sha256": hashlib.sha256(file).hexdigest(),
        "latent_sha256": latent_hash(file),
        "caption": read.description.caption,
        "objects": objects,
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    written = files()
    for name, file in written.items():
        if (FOLDER / name).exists():
            written[name] = (FOLDER / name).read_bytes()
        else:
            (FOLDER / name).write_bytes(file)
    manifest = {"sections": sections(), "files": {name: said(file) for name, file in written.items()}}
    (FOLDER / "words.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
