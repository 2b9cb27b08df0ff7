# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile ``misc``: a picture, a caption and up to three objects, after MISC, whose 3 steps an object and 40 large models
take.
"""

from picogram.bitstream import Profile
from picogram.profiles.spec import NEGATIVE, DrawingPlan, ProfileSpec, StagePlan

PROFILE = ProfileSpec(
    Profile.MISC,
    label="Picture, caption and items",
    explanation="with up to 3 objects as well, by name and roughly where they are",
    plans={
        "embedded": DrawingPlan(StagePlan(1), StagePlan(1)),
        "many-step": DrawingPlan(StagePlan(40, 7.0, negative=NEGATIVE), StagePlan(3, 3.5, negative=NEGATIVE)),
        "one-step": DrawingPlan(StagePlan(1), StagePlan(1)),
    },
    sections=("caption", "objects"),
    required=("caption",),
    max_objects=3,
    mask_sides=(8,),
)
