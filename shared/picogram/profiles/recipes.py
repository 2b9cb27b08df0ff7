# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The profiles as data: which text sections their files have, and which masks.

``check_words`` says what is wrong with words that a caller gives for a profile, before any work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from picogram.bitstream import Picogram, Profile
from picogram.errors import UnsupportedProfile, UsageError
from picogram.semantics.description import Description, Region


@dataclass(frozen=True)
class Recipe:
    """One profile. ``sections`` may be in its files beside the latent, ``required`` always are."""

    profile: Profile
    sections: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    max_objects: int = 0
    mask_sides: tuple[int, ...] = ()
    """Sides that masks may have; those that a captioner finds have the first of them."""
    guided: bool = False
    """Whether a caption, which is not in the file, may guide the encoder."""

    @property
    def name(self) -> str:
        """As in ``--profile``."""
        return self.profile.name.lower()


RECIPES = {
    recipe.profile: recipe
    for recipe in (
        Recipe(Profile.BASE),
        Recipe(Profile.STC, ("caption",), ("caption",)),
        Recipe(Profile.MISC, ("caption", "objects"), ("caption",), max_objects=3, mask_sides=(8,)),
        Recipe(Profile.TACO, guided=True),
        Recipe(
            Profile.SEDIC,
            ("caption", "objects"),
            ("caption",),
            max_objects=8,
            mask_sides=(16, 32, 64),
        ),
    )
}
BASE = RECIPES[Profile.BASE]
MAX_FOCUS_CHARACTERS = 200
"""Of the words that say what matters most."""
MAX_EFFORT = 2
"""Of the encoder: 0 rounds, 1 and 2 search for better integers (``picogram.latent.effort``)."""


def recipe_to_write(name: str) -> Recipe:
    """The recipe of a profile by its name; UnsupportedProfile if there is none."""
    for recipe in RECIPES.values():
        if recipe.name == name:
            return recipe
    raise UnsupportedProfile(f"profile {name!r} is not known")


def check_words(recipe: Recipe, caption: str | None, objects: Sequence[Region] | None) -> None:
    """UsageError for words that the profile does not take or that cannot be coded. None: nothing was given."""
    if caption is not None:
        if "caption" not in recipe.sections and not recipe.guided:
            raise UsageError(f"profile {recipe.name} carries no caption: use profile stc (--profile stc)")
        if not isinstance(caption, str):
            raise UsageError(f"the caption must be a string, not {type(caption).__name__}")
    objects = tuple(objects or ())
    if objects and not recipe.max_objects:
        raise UsageError(f"profile {recipe.name} carries no objects: use profile misc or sedic")
    if len(objects) > recipe.max_objects:
        raise UsageError(
            f"profile {recipe.name} takes up to {recipe.max_objects} objects, not {len(objects)}"
        )
    for region in objects:
        if not isinstance(region, Region):
            raise UsageError(f"an object must be a Region, not {type(region).__name__}")
        if len(region.mask) not in recipe.mask_sides:
            sides = ", ".join(map(str, recipe.mask_sides))
            raise UsageError(f"masks of profile {recipe.name} have a side of {sides}, not {len(region.mask)}")
    Description(caption or "", objects)


def check_focus(words: str) -> None:
    """UsageError for words that name nothing."""
    if not words.strip():
        raise UsageError("the focus has no words")
    if len(words) > MAX_FOCUS_CHARACTERS:
        raise UsageError(f"the focus has {len(words):,} characters; it may have {MAX_FOCUS_CHARACTERS}")
    Description(words)


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
    return tuple(notes)
