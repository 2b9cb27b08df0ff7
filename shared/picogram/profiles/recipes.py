# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The profiles as data: which text sections their files have, and which of the profiles this release writes."""

from __future__ import annotations

from dataclasses import dataclass

from picogram.bitstream import Picogram, Profile
from picogram.errors import UnsupportedProfile


@dataclass(frozen=True)
class Recipe:
    """One profile. ``sections`` may be in its files beside the latent, ``required`` always are."""

    profile: Profile
    sections: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    written: bool = False
    drawn_in_full: bool = False
    """Whether this release does all that the profile asks of a decoder."""

    @property
    def name(self) -> str:
        """As in ``--profile``."""
        return self.profile.name.lower()


RECIPES = {
    recipe.profile: recipe
    for recipe in (
        Recipe(Profile.BASE, written=True, drawn_in_full=True),
        Recipe(Profile.STC, ("caption",), ("caption",), written=True, drawn_in_full=True),
        Recipe(Profile.MISC, ("caption", "objects"), ("caption",)),
        Recipe(Profile.TACO),
        Recipe(Profile.SEDIC, ("caption", "objects"), ("caption",)),
    )
}
BASE = RECIPES[Profile.BASE]


def recipe_to_write(name: str) -> Recipe:
    """The recipe of a profile that files can be written in; UnsupportedProfile for any other name."""
    for recipe in RECIPES.values():
        if recipe.name == name:
            if recipe.written:
                return recipe
            raise UnsupportedProfile(f"profile {name!r} cannot be encoded yet")
    raise UnsupportedProfile(f"profile {name!r} is not known")


def reading_notes(picogram: Picogram) -> tuple[str, ...]:
    """What to tell about a file that is shown as the picture of its latent and its words.

    UnsupportedProfile if it has a section that its profile does not know.
    """
    recipe = RECIPES[picogram.header.profile]
    present = (*picogram.optional, *picogram.damaged)
    for name in present:
        if name not in recipe.sections:
            raise UnsupportedProfile(f"a file of profile {recipe.name} cannot have a section of {name}")
    notes = [f"the file has no {name}" for name in recipe.required if name not in present]
    if not recipe.drawn_in_full:
        notes.append(f"profile {recipe.name} is drawn from its latent alone by this version")
    return tuple(notes)
