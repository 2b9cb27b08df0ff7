# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A model's files: from a folder, or from the hub by repository and commit, checked against their hashes.

    base/     unet/ vae/ text_encoder/ tokenizer/ scheduler/  [text_encoder_2/ tokenizer_2/]
    control/  config.json and weights; in a folder of the operator's: base/controlnet/

Weights are safetensors. Anything else is opened only where its hash is known beforehand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from picogram.errors import ModelDamaged, ModelMissing
from picogram_decoder.hub.hub_models import HubModel, Repository
from picogram_decoder.hub.hub_settings import HubSettings

NETWORK: Final = "diffusion_pytorch_model"
"""Start of the names of weights that diffusers wrote."""
TEXT: Final = "model"
"""Start of the names of weights that transformers wrote."""
SUMS: Final = "SHA256SUMS"
_ENDINGS: Final = (".fp16.safetensors", ".safetensors", ".bin")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Folders:
    """Where the files lie. ``sums``: known SHA-256 by path relative to ``base`` (or to ``control``, if outside)."""

    base: Path
    control: Path | None
    sums: Mapping[str, str] | None
    pinned: Mapping[str, str]


def find_files(model: HubModel, settings: HubSettings) -> Folders:
    """Raises ModelMissing if files are not there and cannot be had."""
    pinned = model.control.sha256 if model.control else {}
    if folder := settings.local_dir:
        if not folder.is_dir():
            raise ModelMissing(f"PICOGRAM_DECODER_LOCAL_DIR is no folder: {folder}")
        control = folder / "controlnet" if model.controlled else None
        return Folders(folder, control, _read_sums(folder), pinned)
    if model.controlled and model.control is None:
        raise ModelMissing(
            f"{model.name} needs a ControlNet of your own: put it and the model into PICOGRAM_DECODER_LOCAL_DIR"
        )
    repository = replace(model.base, revision=settings.revision or model.base.revision)
    base = _download(repository, base_patterns(model), settings)
    control = None
    if model.control:
        names = [f"{NETWORK}.safetensors", *model.control.sha256]
        control = _download(model.control, ["config.json", *names], settings)
    return Folders(base, control, None, pinned)


def base_patterns(model: HubModel) -> list[str]:
    """Which files of the base repository are needed: half of the precision is half of the download."""
    patterns = ["scheduler/scheduler_config.json"]
    for part, stem in weights_of(model).items():
        patterns += [f"{part}/config.json", f"{part}/{stem}.fp16.safetensors"]
    for number in range(model.text_encoders):
        patterns += [f"{numbered('tokenizer', number)}/{kind}" for kind in ("*.json", "*.txt")]
    return patterns


def weights_of(model: HubModel) -> dict[str, str]:
    """Subfolders of the base with weights, and how the names of these start."""
    texts = {numbered("text_encoder", number): TEXT for number in range(model.text_encoders)}
    return {"unet": NETWORK, "vae": NETWORK, **texts}


def numbered(part: str, number: int) -> str:
    """``part``, ``part_2``."""
    return f"{part}_{number + 1}" if number else part


def checked_weights(folders: Folders, folder: Path, stem: str) -> Path:
    """The weights in ``folder``. Raises ModelMissing without them, ModelDamaged unless they are what they should be."""
    if not (folder / "config.json").is_file():
        raise ModelMissing(f"the decoder model has no {_short(folder / 'config.json')}")
    pickles = folders.pinned if folder == folders.control else {}
    for ending in _ENDINGS:
        path = folder / f"{stem}{ending}"
        if path.is_file() and (ending != ".bin" or path.name in pickles):
            expected = pickles.get(path.name) or _expected(folders, path)
            if expected and _sha256(path) != expected:
                raise ModelDamaged(f"{_short(path)} of the decoder model has another SHA-256 than it should")
            return path
    raise ModelMissing(f"the decoder model has no {_short(folder / stem)}.safetensors")


def _expected(folders: Folders, path: Path) -> str | None:
    """The hash of a file if one is known: from the folder's list, or as the name under which the hub's cache keeps it."""
    if folders.sums is None:
        name = path.resolve().name
        return name if _HASH.fullmatch(name) else None
    name = path.relative_to(folders.base).as_posix()
    if name not in folders.sums:
        raise ModelDamaged(f"{SUMS} of the decoder model does not list {name}")
    return folders.sums[name]


def _download(repository: Repository, patterns: list[str], settings: HubSettings) -> Path:
    where = f"{repository.name} at {repository.revision[:10]}"
    try:
        path = snapshot_download(
            repository.name,
            revision=repository.revision,
            cache_dir=settings.cache_dir,
            local_files_only=settings.offline,
            allow_patterns=patterns,
        )
    except GatedRepoError as error:
        raise ModelMissing(f"{where} needs its terms accepted, and HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ModelMissing(f"the hub has no {repository.name}, or not for everybody") from error
    except RevisionNotFoundError as error:
        raise ModelMissing(f"the hub has no {where}") from error
    except LocalEntryNotFoundError as error:
        why = "is not downloaded" if settings.offline else "is not downloaded, and the hub does not answer"
        raise ModelMissing(f"{where} {why}") from error
    except Exception as error:  # of the file system, of the hub's HTTP client, and of whatever carries that
        raise ModelMissing(f"{where} could not be downloaded: {type(error).__name__}") from error
    return Path(path)


def _read_sums(folder: Path) -> dict[str, str] | None:
    """``SHA256SUMS`` as ``sha256sum`` writes it; None without one."""
    path = folder / SUMS
    if not path.is_file():
        return None
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return {name.lstrip("*").removeprefix("./"): digest.lower() for digest, name in lines}
    except ValueError as error:
        raise ModelDamaged(f"{SUMS} of the decoder model cannot be read") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
