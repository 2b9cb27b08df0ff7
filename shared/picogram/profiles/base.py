# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile ``base``: a picture and nothing else."""

from picogram.bitstream import Profile
from picogram.profiles.spec import NEGATIVE, DrawingPlan, ProfileSpec, StagePlan

PROFILE = ProfileSpec(
    Profile.BASE,
    label="Picture only",
    explanation="a picture only: all bytes go there",
    plans={
        "embedded": DrawingPlan(StagePlan(1)),
        "many-step": DrawingPlan(StagePlan(20, negative=NEGATIVE)),
        "one-step": DrawingPlan(StagePlan(1)),
    },
)
