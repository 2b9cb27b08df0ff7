# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Files of tiny untrained models as repositories lay them out, in folders and in the hub's cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from picogram_decoder.hub.blank import END, SCHEDULER, START, blank_parts, byte_vocabulary
from picogram_decoder.hub.hub_fetch import numbered
from picogram_decoder.hub.hub_models import HubModel, Repository


def save(model: HubModel, folder: Path, variant: str | None = "fp16") -> Path:
    """A model's files; the ControlNet in ``controlnet``, without a variant."""
    parts = blank_parts(model, tiny=True)
    parts.unet.save_pretrained(folder / "unet", variant=variant)
    parts.vae.save_pretrained(folder / "vae", variant=variant)
    for number, encoder in enumerate(parts.text_encoders):
        encoder.save_pretrained(folder / numbered("text_encoder", number), variant=variant)
        _save_tokenizer(folder / numbered("tokenizer", number))
    if parts.control is not None:
        parts.control.save_pretrained(folder / "controlnet")
    (folder / "scheduler").mkdir()
    config = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1, **SCHEDULER}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


def cache(repository: Repository, source: Path, folder: Path) -> Path:
    """``source`` as the hub's cache keeps a commit: weights under their hashes, with links. The folder with the links."""
    root = folder / f"models--{repository.name.replace('/', '--')}"
    snapshot = root / "snapshots" / repository.revision
    (root / "blobs").mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copy(path, blob)
            link = snapshot / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    return snapshot


def sums(folder: Path) -> None:
    """Write SHA256SUMS of all files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(folder)}\n" for path in files
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(byte_vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": "!",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **config}))
