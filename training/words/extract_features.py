# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Image features of captioned photographs, once, as arrays that training memory-maps.

In: a tar with ``captions.jsonl`` and the photos it names. Out, all fp16, photos in order of file name, each as it is
(first index 0) and mirrored (1):

    tokens.npy [2,N,9,1280]   means over a 3x3 grid of windows, row by row
    pooled.npy [2,N,1280]     mean over the whole photo
    logits.npy [2,N,1000]     ImageNet classes
    photos.json               file names in order, true aspect ratios (width / height; null: unknown), the source

    python -m training.words.extract_features flickr8k.tar --weights efficientnet-lite0.pth --out FEATURES
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from picogram.semantics.features import CHANNELS, CLASSES, FeatureNet, Features, preprocess
from training.words.data import captioned

TOKEN_SIDE = 3


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("photos", type=Path)
    made.add_argument("--weights", type=Path, required=True, help=".pth or .safetensors")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--batch", type=int, default=32)
    return made


def main() -> None:
    args = parser().parse_args()
    net = FeatureNet(load_weights(args.weights)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, held_out = captioned(args.photos)
    rows = train + held_out
    args.out.mkdir(parents=True, exist_ok=True)
    write_features(net, args.photos, [row["file"] for row in rows], args.out, args.batch)
    about = {
        "source": args.photos.name,
        "files": [row["file"] for row in rows],
        "aspects": [row.get("true_aspect") for row in rows],
    }
    (args.out / "photos.json").write_text(json.dumps(about))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The published state dict from either kind of file."""
    if path.suffix == ".safetensors":
        return load_file(path)
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


@torch.inference_mode()
def write_features(net: FeatureNet, tar: Path, files: list[str], out: Path, batch: int) -> None:
    """Fill the three arrays batch by batch; they never lie in memory as a whole."""
    shapes = {"tokens": (TOKEN_SIDE**2, CHANNELS), "pooled": (CHANNELS,), "logits": (CLASSES,)}
    arrays = {
        name: np.lib.format.open_memmap(
            out / f"{name}.npy", mode="w+", dtype=np.float16, shape=(2, len(files), *shape)
        )
        for name, shape in shapes.items()
    }
    start = 0
    for pixels in pictures(tar, files, batch):
        for mirrored in (0, 1):
            seen = pixels.flip(3) if mirrored else pixels
            features = net(seen.contiguous(memory_format=torch.channels_last))
            for name, values in flat(features).items():
                arrays[name][mirrored, start : start + len(pixels)] = values.half().numpy()
        start += len(pixels)
        print(f"{start} of {len(files)} photos", flush=True)
    for array in arrays.values():
        array.flush()


def flat(features: Features) -> dict[str, Tensor]:
    return {
        "tokens": features.tokens(TOKEN_SIDE),
        "pooled": features.pooled,
        "logits": features.logits,
    }


def pictures(tar: Path, files: list[str], batch: int) -> Iterator[Tensor]:
    """Batches ``[B,3,S,S] float32 0..1`` in the order of ``files``."""
    with tarfile.open(tar) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        for start in range(0, len(files), batch):
            photos = []
            for file in files[start : start + batch]:
                data = archive.extractfile(members[file])
                assert data is not None
                photos.append(Image.open(io.BytesIO(data.read())).convert("RGB"))
            yield torch.stack([preprocess(photo) for photo in photos])


if __name__ == "__main__":
    main()
