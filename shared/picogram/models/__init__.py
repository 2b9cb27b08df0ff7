# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Shipped weights and their manifests: a JSON file with id, size, SHA-256, licence and origin beside each model."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from picogram.errors import ModelDamaged, ModelMissing, UnknownModel

DEFAULT_LATENT = 2
"""Id of the latent model that files of every profile are written with."""

DEFAULT_DIFFUSION = 2
"""Id of the diffusion model that restores pictures; files do not depend on it."""


def weights_folder() -> Path:
    """Where the embedded weights lie."""
    return Path(str(resources.files("picogram.models"))) / "weights"


@lru_cache(maxsize=1)
def manifests() -> dict[int, dict[str, Any]]:
    """Embedded latent models by id."""
    found = {}
    for path in sorted(weights_folder().glob("latent-*.json")):
        manifest = json.loads(path.read_text())
        found[int(manifest["id"])] = manifest
    return found


def all_manifests() -> list[dict[str, Any]]:
    """Of every model in the package, by file name."""
    return [json.loads(path.read_text()) for path in sorted(weights_folder().glob("*.json"))]


def latent_weights(model: int) -> Path:
    """File of a latent model, checked against its manifest.

    Raises UnknownModel for an id nobody shipped here, ModelMissing and ModelDamaged for a broken installation.
    """
    manifest = manifests().get(model)
    if manifest is None:
        raise UnknownModel(f"the file needs latent model {model}; installed: {sorted(manifests())}")
    return shipped_weights(manifest)


def shipped_manifest(name: str) -> dict[str, Any]:
    """Manifest of a model in the package, by name; ModelMissing if it is not there."""
    found: dict[str, Any] = json.loads(_present(weights_folder() / f"{name}.json").read_text())
    return found


def shipped_weights(manifest: dict[str, Any]) -> Path:
    """File of a model in the package, checked against its manifest; ModelMissing or ModelDamaged."""
    path = _present(weights_folder() / str(manifest["file"]))
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["sha256"]:
        raise ModelDamaged(f"{path.name} does not match its hash: reinstall picogram-codec")
    return path


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ModelMissing(f"{path.name} is missing from this installation: reinstall picogram-codec")
    return path
