# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile ``sedic``: a picture, a caption and up to eight objects with finer masks, each drawn by itself, after SEDIC,
whose appendix finds its best near 10 steps an object and 20.
"""

from picogram.bitstream import Profile
from picogram.diffusion.stages import Attention
from picogram.profiles.spec import NEGATIVE, DrawingPlan, ProfileSpec, StagePlan

_ORAG = Attention()

PROFILE = ProfileSpec(
    Profile.SEDIC,
    label="Picture, caption and shapes",
    explanation="with up to 8 objects as well, by name and shape, each drawn by itself",
    plans={
        "embedded": DrawingPlan(StagePlan(1), StagePlan(1, attention=_ORAG)),
        "many-step": DrawingPlan(
            StagePlan(20, 7.0, negative=NEGATIVE),
            StagePlan(10, 3.5, control="previous", negative=NEGATIVE, attention=_ORAG),
        ),
        "one-step": DrawingPlan(StagePlan(1), StagePlan(1, attention=_ORAG)),
    },
    sections=("caption", "objects"),
    required=("caption",),
    max_objects=8,
    mask_sides=(16, 32, 64),
)
