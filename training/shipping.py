# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From trained tensors to a shipped model: int8 with a scale per output channel, a file of weights and its manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def int8_channels(name: str, value: Tensor) -> dict[str, Tensor]:
    """A matrix or kernel as int8 under ``name`` and its scales under ``NAME.scale``: what ``unpack_floats`` undoes."""
    value = value.detach().float().cpu()
    scale = value.flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    codes = torch.round(value / scale.view(-1, *[1] * (value.dim() - 1))).to(torch.int8)
    return {name: codes, f"{name}.scale": scale}


def add_target_options(made: argparse.ArgumentParser) -> None:
    """Where a model goes, and under which id."""
    made.add_argument("--model", type=int, required=True, help="id of the new model, written into files")
    made.add_argument("--out", type=Path, required=True, help="folder")
    made.add_argument("--overwrite", action="store_true", help="replace a model of the same id")


def refuse_taken(args: argparse.Namespace, kind: str) -> None:
    """Raises SystemExit for an id that is in use: files that name it could not be read any more."""
    path = args.out / f"{kind}-{args.model}.safetensors"
    if path.exists() and not args.overwrite:
        raise SystemExit(f"{path} exists: take a new id, or --overwrite a model that was never released")


def ship(
    folder: Path, kind: str, model: int, tensors: dict[str, Tensor], about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``KIND-MODEL.safetensors`` and ``.json``; the manifest, of which ``about`` is the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{model}.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    data = path.read_bytes()
    manifest: dict[str, Any] = {
        "name": path.stem,
        "id": model,
        "kind": kind,
        "file": path.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": "Apache-2.0",
        **about,
    }
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest
