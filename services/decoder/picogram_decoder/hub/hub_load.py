# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``load_hub_denoiser(name)``: a model from a hub or a folder, ready for the sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picogram.environment import read_settings
from picogram.errors import ModelMissing, UsageError
from picogram_decoder.hub.hub_models import find_model
from picogram_decoder.hub.hub_settings import HubSettings

if TYPE_CHECKING:
    from picogram_decoder.hub.hub_denoiser import HubDenoiser


def load_hub_denoiser(name: str, settings: HubSettings | None = None) -> HubDenoiser:
    """A model of ``models.MODELS``; without ``settings``, as the environment says.

    Raises UsageError for an unknown name, a GPU that is not there, or guidance by gradient of a one-step model;
    ModelMissing if files cannot be had or the extra ``decoder-hub`` is not installed, ModelDamaged if they are not what
    they should be.
    """
    model = find_model(name)
    settings = settings or read_settings(HubSettings)
    if settings.attention == "gradient" and model.kind != "many-step":
        raise UsageError(f"attention guidance by gradient needs a model of many steps, not {model.name}")
    try:
        import torch

        from picogram.processor import Placement
        from picogram_decoder.hub.hub_denoiser import HubDenoiser
        from picogram_decoder.hub.hub_fetch import find_files
        from picogram_decoder.hub.parts import load_parts
    except (ImportError, RuntimeError) as error:  # diffusers turns one into the other
        why = " ".join(str(error).split())[:160]
        raise ModelMissing(f"{name} needs pip install 'picogram-codec[decoder-hub]': {why}") from error
    chosen = settings.device
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    automatic = "float32" if chosen == "cpu" else "float16"
    dtype = getattr(torch, automatic if settings.dtype == "auto" else settings.dtype)
    placement = Placement.of(chosen, dtype)
    parts = load_parts(model, find_files(model, settings), placement.dtype, placement.device)
    return HubDenoiser(model, parts, settings.attention)
