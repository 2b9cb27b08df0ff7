# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""All profiles, in the order in which they are offered. Command line, server, page and benchmarks take them from here."""

from __future__ import annotations

from typing import Final

from picogram.bitstream import Picogram
from picogram.errors import UnsupportedProfile
from picogram.profiles import base, misc, sedic, stc, taco
from picogram.profiles.spec import ProfileSpec

PROFILES: Final[dict[str, ProfileSpec]] = {
    module.PROFILE.name: module.PROFILE for module in (base, stc, misc, taco, sedic)
}
DEFAULT_PROFILE: Final = base.PROFILE.name
_BY_CODE = {spec.code: spec for spec in PROFILES.values()}


def profile_named(name: str) -> ProfileSpec:
    """UnsupportedProfile if there is none."""
    if not isinstance(name, str) or name not in PROFILES:
        raise UnsupportedProfile(f"profile {name!r} is not known")
    return PROFILES[name]


def profile_of(file: Picogram) -> ProfileSpec:
    """Of a parsed file."""
    return _BY_CODE[file.header.profile]


def explained() -> str:
    """One sentence on all profiles, for help texts."""
    return "; ".join(f"{spec.name}: {spec.explanation}" for spec in PROFILES.values())
