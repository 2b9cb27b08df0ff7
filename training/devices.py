# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Where a training computes, and how: CUDA where there is one, images channels last, bfloat16 where it is fast."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from picogram.processor import has_fast_bfloat16

Net = TypeVar("Net", bound=nn.Module)


def device_of(cpu: bool) -> torch.device:
    """CUDA where there is one, unless ``cpu``."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def placed(net: Net, device: torch.device) -> Net:
    """On a device, channels last."""
    found: Net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16, but on processors that are slow at it."""
    enabled = device.type != "cpu" or has_fast_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def tuned_for_speed() -> None:
    """What every run on a GPU wants: TensorFloat32 in products, kernels chosen by trial."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
