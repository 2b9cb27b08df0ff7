# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Models in the cache, too large for the package: the language model for texts and the network for image features.

    CACHE/text/text-lm-1.safetensors          CACHE/features/features-1.safetensors
    CACHE/text/tokenizer-1.json

Each has a manifest in ``remote/``. A file is hashed when it is first seen; a stamp beside it remembers the hash with
the size and time of change, and holds as long as these stay the same. ``picogram.pull`` puts the files there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from picogram.errors import ModelDamaged, ModelMissing, UsageError
from picogram.models.fetch import Digest, Distribution, cache_folder, install, sha256_of

NEEDS = {"text": ("torch", "safetensors", "gguf", "tokenizers"), "features": ("torch", "safetensors")}
"""Python modules without which the model cannot be made or used, by its name."""
EXTRAS = {"text": "text", "features": "torch"}
"""The extra of picogram-codec that brings them."""


@dataclass(frozen=True)
class Remote:
    """A model that can be pulled: where it comes from, and the files that are made of it."""

    name: str
    archive: Distribution
    member: Digest
    files: dict[str, Digest]
    manifest: dict[str, Any]

    @property
    def command(self) -> str:
        """What a person runs to get it."""
        return f"picogram models pull {self.name}"

    @property
    def folder(self) -> Path:
        """Where its files belong."""
        return cache_folder() / self.name


def remote_folder() -> Path:
    """Where the manifests of models to pull lie."""
    return Path(str(resources.files("picogram.models"))) / "remote"


@lru_cache(maxsize=1)
def remotes() -> dict[str, Remote]:
    """Models that can be pulled, by name: ``features`` and ``text``."""
    found = (_parse(json.loads(path.read_text())) for path in sorted(remote_folder().glob("*.json")))
    return {remote.name: remote for remote in found}


def remote(name: str) -> Remote:
    """The model of that name. Raises UsageError if there is none."""
    if name not in remotes():
        raise UsageError(f"there is no model named {name!r} to pull; only {', '.join(remotes())}")
    return remotes()[name]


def text_model_file() -> Path:
    """The language model's integers (safetensors). Raises ModelMissing or ModelDamaged with the command that helps."""
    return _require("text", "file")


def tokenizer_file() -> Path:
    """The language model's tokenizer (JSON of the tokenizers library). Raises as ``text_model_file``."""
    return _require("text", "tokenizer")


def features_file() -> Path:
    """EfficientNet-Lite0 (safetensors, float32). Raises as ``text_model_file``."""
    return _require("features", "file")


def text_available() -> bool:
    """Whether the language model can be used here: its files are intact, its Python modules are installed. Cheap."""
    return missing_module("text") is None and state("text") == "pulled"


def missing_module(name: str) -> str | None:
    """The first Python module that the model needs and this installation lacks; none is imported."""
    return next((module for module in NEEDS[name] if importlib.util.find_spec(module) is None), None)


def state(name: str) -> str:
    """``pulled``, ``not pulled`` (also if only in part) or ``damaged``."""
    model = remote(name)
    if not all((model.folder / file).is_file() for file in model.files):
        return "not pulled"
    return (
        "pulled"
        if all(_good(model.folder / file, digest) for file, digest in model.files.items())
        else "damaged"
    )


def _require(name: str, role: str) -> Path:
    model = remote(name)
    entry = model.manifest if role == "file" else model.manifest[role]
    path = model.folder / str(entry["file"])
    if not path.is_file():
        raise ModelMissing(f"{path} is missing: run `{model.command}`")
    if not _good(path, model.files[path.name]):
        raise ModelDamaged(f"{path} does not match its hash: run `{model.command}`")
    return path


def _good(path: Path, digest: Digest) -> bool:
    """Whether the file is what it should be. One of another size needs no hashing."""
    return path.stat().st_size == digest.size and _known_sha256(path) == digest.sha256


def _known_sha256(path: Path) -> str:
    """SHA-256 from the stamp if the file did not change since, else computed, and stamped if that is possible."""
    status = path.stat()
    seen = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    stamp = path.with_name(f".{path.name}.stamp")
    with contextlib.suppress(OSError, ValueError):
        noted = json.loads(stamp.read_text())
        if isinstance(noted, dict) and noted == seen | {"sha256": noted.get("sha256")}:
            return str(noted["sha256"])
    sha256 = sha256_of(path)
    # A read-only cache serves as well, only slower.
    with (
        contextlib.suppress(OSError),
        tempfile.TemporaryDirectory(prefix=".stamp-", dir=path.parent) as scratch,
    ):
        made = Path(scratch) / stamp.name
        made.write_text(json.dumps(seen | {"sha256": sha256}))
        install(made, stamp)
    return sha256


def _parse(manifest: dict[str, Any]) -> Remote:
    origin = manifest["origin"]
    member = origin["member"]
    entries = [manifest] + ([manifest["tokenizer"]] if "tokenizer" in manifest else [])
    return Remote(
        name=manifest["kind"],
        archive=Distribution(
            origin["requirement"],
            Digest(origin["size"], origin["sha256"]),
            {member["path"]: Path(member["path"]).name},
        ),
        member=Digest(member["size"], member["sha256"]),
        files={entry["file"]: Digest(entry["size"], entry["sha256"]) for entry in entries},
        manifest=manifest,
    )
