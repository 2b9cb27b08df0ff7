# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile ``stc``: a picture and a caption, after Murai et al., whose 40 steps large models take."""

from picogram.bitstream import Profile
from picogram.profiles.spec import NEGATIVE, DrawingPlan, ProfileSpec, StagePlan

PROFILE = ProfileSpec(
    Profile.STC,
    label="Picture and caption",
    explanation="a picture and a caption, in a few bytes of words",
    plans={
        "embedded": DrawingPlan(StagePlan(1)),
        "many-step": DrawingPlan(StagePlan(40, 7.0, negative=NEGATIVE)),
        "one-step": DrawingPlan(StagePlan(1)),
    },
    sections=("caption",),
    required=("caption",),
)
