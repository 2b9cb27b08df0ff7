# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The networks of a model, read from its files: every weight must be there, and nothing is fetched or executed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from picogram.errors import ModelDamaged, ModelMissing
from picogram_decoder.hub.hub_fetch import NETWORK, TEXT, Folders, checked_weights, numbered
from picogram_decoder.hub.hub_models import HubModel

TEXT_ENCODERS: tuple[type[Any], type[Any]] = (CLIPTextModel, CLIPTextModelWithProjection)
"""Only the second of two gives a vector for the whole prompt."""
# As Lin et al. (WACV 2024) recommend: the first step is the noisiest there is, whatever their number.
_SCHEDULER = {"timestep_spacing": "trailing", "use_karras_sigmas": False}


@dataclass(frozen=True)
class Parts:
    """A model in memory, on one device and frozen. ``scheduler()`` makes a fresh one."""

    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    scheduler: Callable[[], Any]
    control: Any = None


def load_parts(model: HubModel, folders: Folders, dtype: torch.dtype, device: torch.device) -> Parts:
    """Raises ModelMissing or ModelDamaged."""
    base = folders.base

    def network(kind: type[Any], folder: Path, stem: str, own: torch.dtype = dtype) -> Any:
        return _network(kind, checked_weights(folders, folder, stem), own).to(device)

    numbers = range(model.text_encoders)
    parts = Parts(
        unet=network(UNet2DConditionModel, base / "unet", NETWORK),
        vae=network(AutoencoderKL, base / "vae", NETWORK, torch.float32 if model.upcast else dtype),
        text_encoders=tuple(
            network(TEXT_ENCODERS[n], base / numbered("text_encoder", n), TEXT) for n in numbers
        ),
        tokenizers=tuple(_tokenizer(base / numbered("tokenizer", n)) for n in numbers),
        scheduler=fresh_scheduler(model, _json(base / "scheduler" / "scheduler_config.json")),
        control=network(ControlNetModel, folders.control, NETWORK) if folders.control else None,
    )
    check(model, parts)
    return parts


def fresh_scheduler(model: HubModel, config: Mapping[str, Any]) -> Callable[[], Any]:
    """What makes schedulers of a model's class by the repository's configuration."""
    kind: Any = getattr(diffusers, model.scheduler)
    # "leading" schedules shift their times by an offset, which others must not.
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key != "steps_offset"}
    return lambda: kind.from_config({**kept, **_SCHEDULER})


def check(model: HubModel, parts: Parts) -> None:
    """ModelDamaged unless the parts fit one another and what is known of the model."""
    width = sum(encoder.config.hidden_size for encoder in parts.text_encoders)
    cell = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    align = cell * 2 ** (len(parts.unet.config.block_out_channels) - 1)
    asked = parts.unet.config.cross_attention_dim
    fits = asked == width and align == model.align and parts.unet.config.in_channels == 4
    if parts.control is not None:
        fits = fits and parts.control.config.cross_attention_dim == width
    if not fits:
        raise ModelDamaged(f"the files are not those of a model like {model.name}")


def _network(kind: type[Any], weights: Path, dtype: torch.dtype) -> Any:
    options: dict[str, Any] = {
        "use_safetensors": weights.suffix == ".safetensors",
        "variant": "fp16" if ".fp16." in weights.name else None,
    }
    try:
        network, found = kind.from_pretrained(
            weights.parent, dtype=dtype, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # damaged files fail in as many ways as there are places that read them
        raise ModelDamaged(
            f"{weights.parent.name} of the decoder model cannot be loaded: {_line(error)}"
        ) from error
    if lacking := sorted(found["missing_keys"]) or found["mismatched_keys"]:
        raise ModelDamaged(f"{weights.parent.name} of the decoder model lacks weights, such as {lacking[0]}")
    return network.eval().requires_grad_(False)


def _tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise ModelMissing(f"the decoder model has no {folder.name}/vocab.json")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelDamaged(f"{folder.name} of the decoder model cannot be loaded: {_line(error)}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelMissing(f"the decoder model has no {path.parent.name}/{path.name}") from error
    except ValueError as error:
        raise ModelDamaged(f"{path.name} of the decoder model is no JSON") from error
    if not isinstance(found, dict):
        raise ModelDamaged(f"{path.name} of the decoder model is no object")
    return found


def _line(error: Exception) -> str:
    """The start of an error's message: libraries write paragraphs."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
