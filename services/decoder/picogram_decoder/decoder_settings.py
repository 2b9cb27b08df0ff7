# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the decoder worker; each is an environment variable ``PICOGRAM_DECODER_<NAME>``."""

from __future__ import annotations

from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

EMBEDDED: Final = "embedded"
"""The diffusion model that comes with the package."""


class DecoderSettings(BaseSettings):
    """What imagines."""

    model_config = SettingsConfigDict(env_prefix="PICOGRAM_DECODER_", env_ignore_empty=True, frozen=True)

    model: str = Field(
        default=EMBEDDED,
        description="What imagines: embedded, the model that comes with the package, or one of the hub's by the name "
        "that docs/gpu-decoder.md lists.",
    )
