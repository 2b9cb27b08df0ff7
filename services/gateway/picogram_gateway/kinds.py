# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The kinds of jobs that a caller can ask for; to the queue they are just names."""

from __future__ import annotations

from typing import Literal, cast

from picogram.jobs import JobState

Kind = Literal["encode", "decode", "inspect", "describe", "reference"]


def kind_of(state: JobState) -> Kind:
    """The kind of a job, which a gateway has submitted: nothing else does."""
    return cast(Kind, state.kind)
