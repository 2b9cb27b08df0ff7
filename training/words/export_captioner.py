# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Write the shipped captioner: projector and adapters as int8 with a scale per row, the prompt, the vocabulary.

    python -m training.words.export_captioner --run RUN --data flickr8k.tar --tokenizer TOKENIZER \\
        --out shared/picogram/models/weights
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from picogram.semantics.captioner import CAPTIONER
from picogram.semantics.regions import class_names
from training.engine import weights_of
from training.words.data import captioned, tokenise
from training.words.export_text import pack_prompt
from training.words.train_prompt import prompt_of

FAMILIAR = 60
"""Captions that name an object before the captioner is trusted with it."""


def pack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A trained ``Seeing`` as ``EmbeddedCaptioner`` takes it."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("adapters."):
            _, side, layer = name.split(".", 2)
            name = f"adapters.{layer.removeprefix('w_').replace('_', '.', 1)}.{side}"
        elif not name.startswith("projector."):
            continue
        name = (
            "projector.size" if name == "projector.scale" else name
        )  # ".scale" means row scales in a shipped file
        if value.dim() == 2 and not name.endswith("place"):
            scale = value.abs().amax(1).clamp(min=1e-12) / 127
            out[name] = torch.round(value / scale[:, None]).to(torch.int8)
            out[f"{name}.scale"] = scale.float()
        else:
            out[name] = value.half()
    out["prompt.caption"], out["prompt.caption.shift"] = pack_prompt(prompt_of(state, "prompt."))
    return {name: value.contiguous() for name, value in out.items()}


def familiar_names(captions: list[str]) -> list[str]:
    """Names of objects that occur in at least FAMILIAR captions."""
    words = Counter(word for caption in captions for word in set(re.findall("[a-z]+", caption.lower())))
    return sorted(name for name in {n for n in class_names() if n} if words[name] >= FAMILIAR)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "data", "tokenizer", "out"):
        made.add_argument(f"--{name}", type=Path, required=True)
    made.add_argument("--scores", type=Path, help="JSON of training.words.validate_captioner")
    return made


def main() -> None:
    args = parser().parse_args()
    weights = args.run / "average.safetensors"
    tensors = pack(weights_of(weights))
    with safe_open(weights, "pt") as file:
        about: dict[str, str] = file.metadata()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    train, held_out = captioned(args.data)
    used = {i for row in train + held_out for c in row["captions"] for i in tokenise(tokenizer, c).ids}
    tensors["vocabulary"] = torch.tensor(sorted(used), dtype=torch.int32)
    name = f"captioner-{CAPTIONER}"
    path = args.out / f"{name}.safetensors"
    save_file(tensors, path)
    manifest = {
        "id": CAPTIONER,
        "name": name,
        "file": path.name,
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "origin": "trained for Picogram on nine tenths of Flickr8k; needs the language model and EfficientNet-Lite0",
        "recipe": "training/runs/captioner.json",
        "steps": int(about["step"]),
        "core_hours": round(float(about["minutes"]) / 60, 2),
    }
    manifest["familiar"] = familiar_names([c for row in train for c in row["captions"]])
    if args.scores:
        manifest["held_out"] = json.loads(args.scores.read_text())
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
