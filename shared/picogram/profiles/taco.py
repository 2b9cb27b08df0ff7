# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Profile ``taco``: a picture only, whose encoder listened to a caption that is not in the file, after TACO."""

from picogram.bitstream import Profile
from picogram.profiles.spec import NEGATIVE, DrawingPlan, ProfileSpec, StagePlan

PROFILE = ProfileSpec(
    Profile.TACO,
    label="Picture only, guided by words",
    explanation="a picture only; a caption guides the encoder and is not in the file",
    plans={
        "embedded": DrawingPlan(StagePlan(1)),
        "many-step": DrawingPlan(StagePlan(20, negative=NEGATIVE)),
        "one-step": DrawingPlan(StagePlan(1)),
    },
    guided=True,
)
