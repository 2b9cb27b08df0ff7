# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Whole captioned photographs of one shape, once, as an array that training memory-maps.

In: a tar with ``captions.jsonl``. Out: ``photos.u8``, ``[N, 192, 256, 3] uint8`` of the training part and, after it, of
the held-out tenth; ``photos.json`` says how many train, and each photo's number among the tar's, by file name, which is
how ``training.joint.data`` counts captions. Photos are kept whole, for captions speak of all of them; upright ones,
few, are left out.

    python -m training.taco.pack flickr8k.tar --out PHOTOS
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.photos import TarPhoto, decode, read_tar

HEIGHT, WIDTH = 192, 256


def pack(tar: Path, out: Path, limit: int | None = None) -> dict[str, object]:
    """Write both files; ``limit``: at most so many photos of each part."""
    parts = [list(read_tar(tar, held)) for held in (False, True)]
    out.mkdir(parents=True, exist_ok=True)
    numbers: list[int] = []
    counts: list[int] = []
    with (out / "photos.u8").open("wb") as file:
        for first, part in zip((0, len(parts[0])), parts, strict=True):
            wide = [(first + i, photo) for i, photo in enumerate(part) if photo.aspect >= 1][:limit]
            for number, photo in wide:
                file.write(_pixels(photo))
                numbers.append(number)
            counts.append(len(wide))
    about: dict[str, object] = {"train": counts[0], "val": counts[1], "numbers": numbers}
    (out / "photos.json").write_text(json.dumps(about))
    return about


def _pixels(photo: TarPhoto) -> bytes:
    return decode(photo.data, photo.aspect).tobytes()


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("photos", type=Path)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--limit", type=int)
    return made


def main() -> None:
    args = parser().parse_args()
    about = pack(args.photos, args.out, args.limit)
    print(about["train"], about["val"])


if __name__ == "__main__":
    main()
