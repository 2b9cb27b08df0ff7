# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""How well a joint space finds captions of photos, photos of captions, and places of words; on the held-out tenth.

    python -m training.joint.validate --data flickr8k.tar [--weights joint-1.safetensors] [--out SCORES.json]

Protocol: all held-out photos as they are, with all their captions. ``text_to_image``: each caption ranks all photos.
``image_to_text``: each photo ranks all captions, and the best of its own counts. recall@k is the share of queries whose
counterpart is among the first k; ties count against it. ``pointing``: two photos side by side, squashed to one square
picture; the share of captions whose best cell lies in their own half (chance: 0.5).
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from picogram.semantics.joint import JointConfig, JointSpace, joint_space, load_joint, read_heads, similarity
from training.words.data import captioned

RANKS = (1, 5, 10)
_BATCH = 16


def recalls(scores: Tensor, owners: Tensor) -> dict[str, dict[str, float]]:
    """``scores [photos, captions]``, ``owners [captions]``: each caption's photo. Shares 0..1 by direction and rank."""
    own = scores[owners, torch.arange(len(owners))]
    better = (scores >= own).sum(0) - 1
    belongs = owners == torch.arange(len(scores))[:, None]
    best = scores.masked_fill(~belongs, -torch.inf).amax(1, keepdim=True)
    before = ((scores >= best) & ~belongs).sum(1)

    def shares(places: Tensor) -> dict[str, float]:
        return {f"recall@{k}": round((places < k).double().mean().item(), 4) for k in RANKS}

    return {"text_to_image": shares(better), "image_to_text": shares(before)}


def mean_recall(found: dict[str, dict[str, float]]) -> float:
    """The mean of the six numbers."""
    values = [value for part in found.values() for value in part.values()]
    return sum(values) / len(values)


def photos(tar: Path, files: Sequence[str]) -> Iterator[Image.Image]:
    """ "RGB" pictures in the order of ``files``."""
    with tarfile.open(tar) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        for file in files:
            data = archive.extractfile(members[file])
            assert data is not None
            yield Image.open(io.BytesIO(data.read())).convert("RGB")


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one size, side by side, squashed back to that size."""
    both = Image.new("RGB", (2 * left.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right.resize(left.size), (left.width, 0))
    return both.resize(left.size, Image.Resampling.LANCZOS)


def points_right(space: JointSpace, left: Image.Image, right: Image.Image, texts: Tensor) -> list[bool]:
    """``texts [2, D]``: of the left and of the right picture. Whether the best cell of each lies in its half."""
    side = 8  # an even number: no cell belongs to both
    scores = similarity(space.image_map(beside(left, right), side), texts).flatten(0, 1)
    columns = scores.argmax(0) % side
    return [bool(columns[0] < side // 2), bool(columns[1] >= side // 2)]


def measure(space: JointSpace, tar: Path, limit: int | None = None) -> dict[str, Any]:
    """All scores; ``limit``: only so many photos."""
    rows = captioned(tar)[1][:limit]
    pictures = list(photos(tar, [row["file"] for row in rows]))
    images = torch.cat([space.image(pictures[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)])
    captions = [caption for row in rows for caption in row["captions"]]
    texts = space.text(captions)
    owners = torch.tensor([i for i, row in enumerate(rows) for _ in row["captions"]])
    first = texts[[int((owners == i).nonzero()[0]) for i in range(len(rows))]]
    pairs = range(0, len(rows) - 1, 2)
    hits = [h for i in pairs for h in points_right(space, pictures[i], pictures[i + 1], first[i : i + 2])]
    return {
        "model": space.name,
        "photos": len(rows),
        "captions": len(captions),
        **recalls(similarity(images, texts), owners),
        "pointing": round(sum(hits) / len(hits), 4),
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument(
        "--weights", type=Path, help="heads with their manifest beside them; default: the shipped ones"
    )
    made.add_argument("--photos", type=int, help="only so many")
    made.add_argument("--out", type=Path)
    return made


def main() -> None:
    args = parser().parse_args()
    space = open_space(args.weights) if args.weights else load_joint()
    found = measure(space, args.data, args.photos)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


def open_space(weights: Path) -> JointSpace:
    """Heads that are not shipped, with the manifest that ``training.joint.export`` wrote."""
    manifest = json.loads(weights.with_suffix(".json").read_text())
    return joint_space(read_heads(weights, JointConfig(**manifest["config"])), manifest["name"])


if __name__ == "__main__":
    main()
