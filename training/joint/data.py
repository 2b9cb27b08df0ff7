# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the frozen networks make of captioned photographs, once, as arrays that training memory-maps; resumable.

In: a tar with ``captions.jsonl`` and the photos it names. Out, fp16, photos in order of file name:

    cells.npy [2,N,9,1280]    features of a photo in 3x3 windows, as it is (0) and mirrored (1)
    pooled.npy [2,N,1280]     their mean over the whole photo
    states.npy [M,576]        hidden states of all captions' tokens one after another, without the start
    index.json                files, how many train, where each photo's captions and each caption's states begin
    done.json                 how many photos and batches of captions are written

    python -m training.joint.data flickr8k.tar --out DATA [--layers 12]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from picogram.models.store import features_file, text_model_file
from picogram.semantics.features import CHANNELS, FeatureNet, Features
from picogram.semantics.joint import WINDOWS, JointConfig, by_length, caption_ids, padded
from picogram.text.lm.exact_lm import LMConfig
from picogram.text.lm.loading_lm import load_tokenizer
from picogram.text.lm.tokens import LMTokenizer
from training.words.data import captioned
from training.words.extract_features import pictures
from training.words.float_lm import FloatLM

Array = npt.NDArray[Any]
PICTURES, TEXTS = "photos", "batches"
SAVE_EVERY = 20
"""Batches between notes of progress."""


class Progress:
    """How far each part came, in ``done.json``; what is written beyond that is written again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        self.begun = time.time()

    def note(self, part: str, done: int, total: int) -> None:
        self.done[part] = done
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.done))
        temporary.replace(self.path)
        print(f"{time.time() - self.begun:6.0f}s {done} of {total} {part}", flush=True)


def open_array(path: Path, shape: tuple[int, ...], fresh: bool) -> Array:
    """A memory-mapped fp16 array, an existing one unless ``fresh``."""
    mode = "w+" if fresh or not path.exists() else "r+"
    array: Array = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=shape)
    return array


def make_index(rows: list[dict[str, Any]], trained: int, tokens: LMTokenizer, layers: int) -> dict[str, Any]:
    """``captions``: N + 1 places of captions; ``states``: M + 1 places of states; ``ids``: of every caption."""
    ids = [caption_ids(tokens, caption) for row in rows for caption in row["captions"]]
    return {
        "files": [row["file"] for row in rows],
        "train": trained,
        "layers": layers,
        "captions": [0, *accumulate(len(row["captions"]) for row in rows)],
        "states": [0, *accumulate(len(row) - 1 for row in ids)],
        "ids": ids,
    }


@torch.inference_mode()
def write_pictures(
    net: Callable[[Tensor], Features], tar: Path, out: Path, files: list[str], batch: int
) -> None:
    """``cells.npy`` and ``pooled.npy``, from the first photo that is not there yet."""
    progress = Progress(out / "done.json")
    start = progress.done.get(PICTURES, 0)
    cells = open_array(out / "cells.npy", (2, len(files), WINDOWS**2, CHANNELS), start == 0)
    pooled = open_array(out / "pooled.npy", (2, len(files), CHANNELS), start == 0)
    for number, pixels in enumerate(pictures(tar, files[start:], batch)):
        for mirrored in (0, 1):
            seen = pixels.flip(3) if mirrored else pixels
            features = net(seen.contiguous(memory_format=torch.channels_last))
            span = slice(start, start + len(pixels))
            cells[mirrored, span] = features.tokens(WINDOWS).half().numpy()
            pooled[mirrored, span] = features.pooled.half().numpy()
        start += len(pixels)
        if number % SAVE_EVERY == SAVE_EVERY - 1 or start == len(files):
            progress.note(PICTURES, start, len(files))


@torch.inference_mode()
def write_states(model: FloatLM, out: Path, index: dict[str, Any], batch: int) -> None:
    """``states.npy``, shortest captions first, from the first batch that is not there yet."""
    progress = Progress(out / "done.json")
    first, places = progress.done.get(TEXTS, 0), index["states"]
    states = open_array(out / "states.npy", (places[-1], model.config.width), first == 0)
    groups = list(by_length(index["ids"], batch))
    for number, group in enumerate(islice(groups, first, None), first + 1):
        ids, _ = padded([index["ids"][i] for i in group])
        found = model(model.embed(ids))
        for row, i in zip(found, group, strict=True):
            count = places[i + 1] - places[i]
            states[places[i] : places[i + 1]] = row[1 : count + 1].half().numpy()
        if number % SAVE_EVERY == 0 or number == len(groups):
            progress.note(TEXTS, number, len(groups))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("photos", type=Path)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--layers", type=int, default=JointConfig.layers)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--limit", type=int, help="only so many photos of each part, for a trial")
    return made


def main() -> None:
    args = parser().parse_args()
    train, held_out = (rows[: args.limit] for rows in captioned(args.photos))
    args.out.mkdir(parents=True, exist_ok=True)
    index = make_index(train + held_out, len(train), load_tokenizer(), args.layers)
    path = args.out / "index.json"
    if path.exists() and json.loads(path.read_text()) != index:
        raise SystemExit(f"{args.out} holds other photos, captions or layers: take another folder")
    path.write_text(json.dumps(index))
    write_states(
        FloatLM(load_file(text_model_file()), LMConfig(layers=args.layers)), args.out, index, args.batch
    )
    net = FeatureNet(load_file(features_file())).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    write_pictures(net, args.photos, args.out, index["files"], args.batch)


if __name__ == "__main__":
    main()
