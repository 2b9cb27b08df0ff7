# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the shipped part of a text model: soft prompts as 8-bit integers with shifts, and the context network.

    python -m training.words.export_text --lm LM --tokenizer TOKENIZER --short SHORT --dense DENSE \\
        [--context CONTEXT] --out shared/picogram/models/weights

SHORT, DENSE and CONTEXT are ``best.safetensors`` of runs of ``train_prompt`` and ``train_visual``.
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

from picogram.latent.codec import load_codec
from picogram.latent.exact_prior import RATE_COUNT
from picogram.text.lm.context import GAIN_BITS
from picogram.text.lm.mode import TEXT_MODEL
from picogram.text.lm.model import KEY_BITS, VALUE_BITS
from training.engine import weights_of
from training.words.float_lm import FloatLM
from training.words.train_prompt import prompt_of, written_prompt
from training.words.train_visual import projector_of

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


def pack_context(state: dict[str, Tensor], latent_model: int) -> dict[str, Tensor]:
    """A trained ``LatentProjector`` as ``PictureContext`` takes it, with the gains of a latent codec."""
    codec = load_codec(latent_model)
    rates = torch.arange(RATE_COUNT) / (RATE_COUNT - 1)
    gain = codec.net.gain(rates)[:, :, 0, 0].double()
    out = {"inverse_gain": torch.round(2.0**GAIN_BITS / gain).to(torch.int32)}
    out["offset"], out["factor"] = state["offset"].double(), 1 / state["spread"].double()
    out["place"] = state["place"].double()
    for name in ("first", "mix", "down", "deep", "quarter", "whole"):
        weight = state[f"{name}.weight"].double()
        if weight.dim() == 4:  # neighbourhoods are gathered position by position, channels inside
            weight = weight.permute(0, 2, 3, 1)
        weight = weight.reshape(len(weight), -1)
        scale = weight.abs().amax(1).clamp(min=2.0**-40) / 127
        out[name] = torch.round(weight / scale[:, None]).to(torch.int8)
        out[f"{name}.scale"], out[f"{name}.bias"] = scale, state[f"{name}.bias"].double()
    return {f"context.{k}": v.contiguous() for k, v in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("lm", "tokenizer", "short", "dense", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--context", type=Path)
    parser.add_argument("--latent-model", type=int, default=1)
    args = parser.parse_args()
    model, tokenizer = FloatLM(load_file(args.lm)), Tokenizer.from_file(str(args.tokenizer))
    prompts = {kind: prompt_of(weights_of(getattr(args, kind))) for kind in ("short", "dense")}
    prompts |= {kind: written_prompt(model, tokenizer, text) for kind, text in WRITTEN.items()}
    tensors: dict[str, Tensor] = {}
    for kind, prompt in prompts.items():
        tensors[f"prompt.{kind}"], tensors[f"prompt.{kind}.shift"] = pack_prompt(prompt)
    manifest = {"id": TEXT_MODEL, "name": f"text-{TEXT_MODEL}", "file": f"text-{TEXT_MODEL}.safetensors"}
    if args.context:
        weights = weights_of(args.context)
        tensors |= pack_context(projector_of(weights), args.latent_model)
        tuned = pack_prompt(prompt_of(weights, "prompt."))
        tensors["prompt.short.context"], tensors["prompt.short.context.shift"] = tuned
        manifest["context_of"] = args.latent_model
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
