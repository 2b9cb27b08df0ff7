# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""``load_hub_denoiser(name)``: a model from a hub or a folder, ready for the sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picogram.environment import read_settings
from picogram.errors import ModelMissing, UsageError
from picogram_decoder.hub.models import find_model
from picogram_decoder.hub.settings import HubSettings

if TYPE_CHECKING:
    from picogram_decoder.hub.denoiser import HubDenoiser


def load_hub_denoiser(name: str, settings: HubSettings | None = None) -> HubDenoiser:
    """A model of ``models.MODELS``; without ``settings``, as the environment says.

    Raises UsageError for an unknown name or a GPU that is not there, ModelMissing if files cannot be had or the extra
    ``decoder-hub`` is not installed, ModelDamaged if they are not what they should be.
    """
    model = find_model(name)
    settings = settings or read_settings(HubSettings)
    try:
        import torch

        from picogram_decoder.hub.denoiser import HubDenoiser
        from picogram_decoder.hub.fetch import find_files
        from picogram_decoder.hub.parts import load_parts
    except (ImportError, RuntimeError) as error:  # diffusers turns one into the other
        why = " ".join(str(error).split())[:160]
        raise ModelMissing(f"{name} needs pip install 'picogram-codec[decoder-hub]': {why}") from error
    chosen = settings.device
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(chosen)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no GPU {chosen}")
    automatic = "float16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, automatic if settings.dtype == "auto" else settings.dtype)
    return HubDenoiser(model, load_parts(model, find_files(model, settings), dtype, device))
