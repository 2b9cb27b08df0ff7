# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Originals beside what the shipped codec makes of them at low rates, once, so that training never runs the codec.

    python -m training.diffusion.pairs --crops CROPS --photos flickr8k.tar --out PAIRS

In: packed crops (``training.pack``; no captions) and a tar of captioned photographs squashed to squares. Out, per source
(``crops`` 192x192, ``wide`` 192x256, ``tall`` 256x192; height first), rows in the same order:

    SOURCE.original.u8, SOURCE.base.u8   [N, H, W, 3] uint8
    SOURCE.latent.f16                    [N, H/16, W/16, 128] decoded latents, gains undone
    SOURCE.rate.u8                       [N] rate indices
    SOURCE.words.u16, SOURCE.lengths.u8  [N, 5, 32] token ids and [N, 5] their number (wide and tall)
    meta.json                            sizes, sources, codec model, seed

Photographs of the last tenth by name are left out. Half of everything is mirrored here, because latents cannot be
mirrored later.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from picogram.latent.codec import PhotoCodec, load_codec
from picogram.models import DEFAULT_LATENT
from picogram.text.lm.load import load_tokens
from training.words.data import captioned
from training.words.extract_latents import decoded_latents

CAPTIONS, LONGEST = 5, 32
"""Captions a photo and tokens a caption; longer ones are cut."""
MAX_RATE = 190
"""Highest rate index drawn: about 0.075 bits a pixel on such crops; 0 gives 0.008."""
LOW_RATES = 1.4
"""Uniform draws are raised to this power: most files should be small."""
USUAL_ASPECT = 1.33
"""Of photographs whose true one is not known."""
BATCH = 8

Pixels = npt.NDArray[np.uint8]
Split = Callable[[str], list[int]]
"""A text to token ids."""


@dataclass(frozen=True)
class Photo:
    """A captioned photograph as it is found in the tar."""

    data: bytes
    captions: list[str]
    aspect: float


class Writer:
    """The files of one source, filled row by row."""

    def __init__(self, folder: Path, name: str, height: int, width: int) -> None:
        self.shape = height, width
        self.count = 0
        self.files = {
            part: (folder / f"{name}.{part}").open("wb")
            for part in ("original.u8", "base.u8", "latent.f16", "rate.u8", "words.u16", "lengths.u8")
        }

    def put(self, **arrays: npt.NDArray[Any]) -> None:
        """Append rows; names are those of the files with ``_`` for the dot."""
        for part, array in arrays.items():
            self.files[part.replace("_", ".")].write(np.ascontiguousarray(array).tobytes())
        self.count += len(arrays["rate_u8"])

    def close(self) -> dict[str, int]:
        for file in self.files.values():
            file.close()
        return {"count": self.count, "height": self.shape[0], "width": self.shape[1]}


@torch.inference_mode()
def through_codec(codec: PhotoCodec, originals: Pixels, rates: list[int]) -> dict[str, npt.NDArray[Any]]:
    """``originals [B, H, W, 3]`` (sides multiples of 64) as rows for ``Writer.put``."""
    pictures = torch.from_numpy(originals).permute(0, 3, 1, 2).float().div_(255)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    latents = decoded_latents(codec, pictures, rates)
    position = torch.tensor(rates) / 255
    base = codec.net.synthesis(latents, position).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return {
        "original_u8": originals,
        "base_u8": base.permute(0, 2, 3, 1).numpy(),
        "latent_f16": latents.permute(0, 2, 3, 1).half().numpy(),
        "rate_u8": np.array(rates, np.uint8),
    }


def captioned_photos(tar: Path) -> tuple[list[Photo], list[Photo]]:
    """Photographs of a captioned tar, sorted by name: the training part and the held-out tenth."""
    parts = captioned(tar)
    with tarfile.open(tar) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}

        def photo(row: dict[str, Any]) -> Photo:
            file = archive.extractfile(members[row["file"]])
            assert file is not None
            return Photo(file.read(), row["captions"], row.get("true_aspect") or USUAL_ASPECT)

        train, held = ([photo(row) for row in part] for part in parts)
    return train, held


def unsquashed(data: bytes, height: int, width: int) -> Pixels:
    """A squashed photograph at one of the two shapes, so that its content has about its true proportions."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def draw_rate(rng: random.Random) -> int:
    return int(MAX_RATE * rng.random() ** LOW_RATES)


def groups(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def write_crops(codec: PhotoCodec, folder: Path, out: Path, rng: random.Random, limit: int) -> dict[str, int]:
    side = json.loads((folder / "meta.json").read_text())["size"]
    data = np.memmap(folder / "train.u8", np.uint8, "r").reshape(-1, side, side, 3)
    writer = Writer(out, "crops", side, side)
    for indices in groups(list(range(len(data)))[:limit], BATCH):
        rows = np.stack([data[i, :, :: rng.choice((1, -1))] for i in indices])
        writer.put(**through_codec(codec, rows, [draw_rate(rng) for _ in indices]))
        if writer.count % 800 == 0:
            print("crops", writer.count, flush=True)
    return writer.close()


def write_photos(
    codec: PhotoCodec, found: list[Photo], writer: Writer, rng: random.Random, split: Split
) -> dict[str, int]:
    for group in groups(found, BATCH):
        rows = np.stack([unsquashed(p.data, *writer.shape)[:, :: rng.choice((1, -1))] for p in group])
        words = np.zeros((len(group), CAPTIONS, LONGEST), np.uint16)
        lengths = np.zeros((len(group), CAPTIONS), np.uint8)
        for i, photo in enumerate(group):
            for j, caption in enumerate(photo.captions[:CAPTIONS]):
                ids = split(caption)[:LONGEST]
                words[i, j, : len(ids)], lengths[i, j] = ids, len(ids)
        coded = through_codec(codec, rows, [draw_rate(rng) for _ in group])
        writer.put(**coded, words_u16=words, lengths_u8=lengths)
        if writer.count % 800 == 0:
            print("photos", writer.shape, writer.count, flush=True)
    return writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=Path, required=True, help="folder made by training.pack")
    parser.add_argument("--photos", type=Path, required=True, help="tar with captions.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--codec", type=int, default=DEFAULT_LATENT, help="id of the latent model")
    parser.add_argument("--limit", type=int, default=10**9, help="at most so many rows of each source")
    args = parser.parse_args()
    rng, codec = random.Random(args.seed), load_codec(args.codec)
    args.out.mkdir(parents=True, exist_ok=True)
    sources = {"crops": write_crops(codec, args.crops, args.out, rng, args.limit)}
    found, _ = captioned_photos(args.photos)
    split = load_tokens().split
    for name, (height, width) in {"wide": (192, 256), "tall": (256, 192)}.items():
        part = [p for p in found if (p.aspect >= 1) == (width > height)][: args.limit]
        sources[name] = write_photos(codec, part, Writer(args.out, name, height, width), rng, split)
    about = {"sources": sources, "codec": codec.model, "seed": args.seed, "max_rate": MAX_RATE}
    (args.out / "meta.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
