# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the shipped part of a text model: soft prompts as 8-bit integers with shifts.

    python -m training.words.export_text --lm LM --tokenizer TOKENIZER --short SHORT --dense DENSE \\
        --out shared/picogram/models/weights

SHORT and DENSE are ``best.safetensors`` of runs of ``train_prompt``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from picogram.text.lm.exact_lm import KEY_BITS, VALUE_BITS
from picogram.text.lm.mode import TEXT_MODEL
from training.engine import weights_of
from training.words.float_lm import FloatLM
from training.words.train_prompt import prompt_of, written_prompt

WRITTEN = {
    "plain": "The text:\n",
    "objects": "Objects in photos:\n dog: brown, running in the grass; ball: small and red\n"
    " man: in a blue shirt; bicycle: leaning against a wall; bench\n boat: white, with a tall mast; lighthouse\n",
}
"""Prompts that are not trained: their keys and values are those of these words."""


def pack_prompt(prompt: Tensor) -> tuple[Tensor, Tensor]:
    """``[layers, 2, n, c]`` reals to int8 and the shift of each layer's channels, on the grids of keys and values."""
    bits = torch.tensor([KEY_BITS, VALUE_BITS])[None, :, None, None]
    integers = torch.round(prompt.double() * 2.0**bits).long()
    largest = integers.abs().amax(2, keepdim=True)
    shift = torch.zeros_like(largest)
    while bool((over := (largest >> shift) >= 127).any()):
        shift += over.long()
    rounded = torch.round(integers.double() / 2.0**shift).clamp(-127, 127)
    return rounded.to(torch.int8), shift.to(torch.uint8)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__)
    for name in ("lm", "tokenizer", "short", "dense", "out"):
        made.add_argument(f"--{name}", type=Path, required=True)
    return made


def main() -> None:
    args = parser().parse_args()
    model, tokenizer = FloatLM(load_file(args.lm)), Tokenizer.from_file(str(args.tokenizer))
    prompts = {kind: prompt_of(weights_of(getattr(args, kind))) for kind in ("short", "dense")}
    prompts |= {kind: written_prompt(model, tokenizer, text) for kind, text in WRITTEN.items()}
    tensors: dict[str, Tensor] = {}
    for kind, prompt in prompts.items():
        tensors[f"prompt.{kind}"], tensors[f"prompt.{kind}.shift"] = pack_prompt(prompt)
    manifest = {"id": TEXT_MODEL, "name": f"text-{TEXT_MODEL}", "file": f"text-{TEXT_MODEL}.safetensors"}
    path = args.out / manifest["file"]
    save_file(tensors, path)
    manifest |= {
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "language_model_sha256": hashlib.sha256(args.lm.read_bytes()).hexdigest(),
        "tokenizer_sha256": hashlib.sha256(args.tokenizer.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "origin": "trained for Picogram on Flickr8k captions and on descriptions written for this project",
        "recipes": ["training/runs/prompt-short.json", "training/runs/prompt-dense.json"],
        "prompt_tokens": {kind: int(p.shape[2]) for kind, p in prompts.items()},
    }
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
