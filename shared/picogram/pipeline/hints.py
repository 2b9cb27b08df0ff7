# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What shapes the encoding of a picture and is not in its file: the caption that the encoder listens to, and where the
picture matters most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from picogram.latent.focus import Focus
    from picogram.latent.guide import Guide

States = npt.NDArray[np.float16]
"""``[T, W]``: what the language model makes of a caption's tokens."""


@dataclass(frozen=True)
class Hints:
    """``heard``: the caption that ``states`` are of."""

    heard: str | None = None
    states: States | None = None
    focus: Focus | None = None

    def guide(self) -> Guide | None:
        """For one picture."""
        if self.states is None:
            return None
        import torch

        from picogram.latent.guide import Guide

        states = torch.from_numpy(self.states).float()[None]
        return Guide(states, torch.ones(1, len(self.states), dtype=torch.bool))
