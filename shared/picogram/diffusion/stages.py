# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a restoration does, as data: a list of stages, each a few steps over the whole picture or one object of it.

A profile asks for such a list (``picogram.pipeline.draw`` writes it); ``picogram.diffusion.sampler`` carries it out with
whatever network there is. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from picogram.errors import UsageError
from picogram.ranges import check_number, check_whole

MAX_STEPS: Final = 100
MAX_GUIDANCE: Final = 20.0
MAX_SEED: Final = 2**32 - 1


AttentionMode = Literal["bias", "gradient"]


@dataclass(frozen=True)
class Attention:
    """Attention guidance: a stage's words act inside its mask (SEDIC's ORAG, as far as it is known).

    ``bias`` adds ``strength`` to the attention logits of the words inside the mask and takes it away outside.
    ``gradient`` moves the noisy picture down the energy of Chen et al., "Training-free layout control with
    cross-attention guidance" (WACV 2024), with that paper's constants: up to ``iterations`` times before a step, while
    the energy is above ``threshold``, by ``scale`` times its gradient and the noise's variance. None: the denoiser's
    own mode.
    """

    mode: AttentionMode | None = None
    share: float = 0.5
    """Of a stage's steps, from the first: later ones draw detail, which needs no guidance."""
    strength: float = 2.0
    scale: float = 30.0
    threshold: float = 0.2
    iterations: int = 5


@dataclass(frozen=True, eq=False)
class Stage:
    """Some steps of one picture. Raises UsageError for values out of range.

    ``prompt``, ``negative``: words to draw by and, under ``guidance`` other than 1, to keep away from.
    ``mask``: ``[S,S] bool`` over the whole picture; what lies outside is kept. None: everything is drawn.
    ``steps``: 1 to MAX_STEPS. ``guidance``: classifier-free, 0 to MAX_GUIDANCE; 1 is none.
    ``start``: noise level to begin from, above 0 (the previous picture as it is) to 1 (all that the model knows).
    ``seed``: of the noise. ``control``: the picture that the network is told to be true to.
    """

    prompt: str = ""
    negative: str = ""
    mask: npt.NDArray[np.bool_] | None = None
    steps: int = 1
    guidance: float = 1.0
    start: float = 1.0
    seed: int = 0
    control: Literal["base", "previous"] = "base"
    attention: Attention | None = None

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1, MAX_STEPS)
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_number("guidance", self.guidance, 0, MAX_GUIDANCE)
        if not 0 < self.start <= 1:
            raise UsageError("a stage starts from a noise level above 0, up to 1")
        mask = self.mask
        if mask is not None and (mask.dtype != np.bool_ or mask.ndim != 2 or 0 in mask.shape):
            raise UsageError(
                f"a stage's mask must be a grid of booleans, not {mask.dtype} {list(mask.shape)}"
            )

    @property
    def shape(self) -> tuple[object, ...]:
        """What stages of one batch must have in common."""
        return self.steps, self.start, self.guidance != 1, self.mask is None, self.control, self.attention
