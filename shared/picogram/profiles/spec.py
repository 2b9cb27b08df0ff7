# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What a profile is: what its files hold, which workers its jobs visit, and how its pictures are drawn, as data.

encode     [lmm:code] ── encoder      lmm for words: those in the file, and those that shape it and are not in it
decode     [lmm:read] ── decoder
inspect    [lmm:read] ── inspector
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from picogram.bitstream import Picogram, Profile
from picogram.diffusion.stages import Attention
from picogram.errors import UnsupportedProfile, UsageError
from picogram.semantics.description import Description, Region

ModelKind = str
"""Of diffusion models: "embedded", which comes with the package; larger ones are "many-step" or "one-step"."""
Route = tuple[str, ...]
"""Steps of a job in order, each a queue or ``queue:task``."""
NEGATIVE: Final = "blurry, out of focus, low quality, flat, smooth, artificial"
"""What large models are told to keep away from; the embedded one has only learnt what no words mean."""


@dataclass(frozen=True)
class StagePlan:
    """Steps over the picture or over one object; fields as in ``picogram.diffusion.stages.Stage``."""

    steps: int
    guidance: float = 1.0
    start: float = 1.0
    control: Literal["base", "previous"] = "base"
    attention: Attention | None = None
    negative: str = ""


@dataclass(frozen=True)
class DrawingPlan:
    """``each`` object of the file in order, by its name and detail inside its mask; then ``overall``, by the caption.

    ``finest``: files of a higher rate (0..1) stay as they are, for the base picture is better there (1.0: none).
    """

    overall: StagePlan
    each: StagePlan | None = None
    finest: float = 1.0


@dataclass(frozen=True, eq=False)
class ProfileSpec:
    """One profile. ``sections`` may be in its files beside the latent, ``required`` always are.

    ``label`` names it to a person, ``explanation`` says in one line what it is. ``mask_sides``: that masks may have;
    those that a captioner finds have the first of them. ``guided``: a caption, which is not in the file, may guide the
    encoder. ``plans``: how files are drawn, by kind of model.
    """

    code: Profile
    label: str
    explanation: str
    plans: Mapping[ModelKind, DrawingPlan] = field(repr=False)
    sections: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    max_objects: int = 0
    mask_sides: tuple[int, ...] = ()
    guided: bool = False

    @property
    def name(self) -> str:
        """As in ``--profile``."""
        return self.code.name.lower()

    def encode_route(self, caption: str | None = None, focus: object = None) -> Route:
        """Words are written before the latent, which gets what they leave of the budget.

        Where the file has none, a caption that guides the encoder and words that name what matters most are dealt with
        before it. ``caption``: None for the captioner's, "" for none.
        """
        listens = self.guided and (caption is None or bool(caption.strip()))
        named = isinstance(focus, str)
        return ("lmm:code", "encoder") if self.sections or listens or named else ("encoder",)

    def check_words(self, caption: str | None, objects: Sequence[Region] | None) -> None:
        """UsageError for words that the profile does not take or that cannot be coded. None: nothing was given."""
        if caption is not None:
            if "caption" not in self.sections and not self.guided:
                raise UsageError(f"profile {self.name} carries no caption: use profile stc (--profile stc)")
            if not isinstance(caption, str):
                raise UsageError(f"the caption must be a string, not {type(caption).__name__}")
        objects = tuple(objects or ())
        if objects and not self.max_objects:
            raise UsageError(f"profile {self.name} carries no objects: use profile misc or sedic")
        if len(objects) > self.max_objects:
            raise UsageError(
                f"profile {self.name} takes up to {self.max_objects} objects, not {len(objects)}"
            )
        for region in objects:
            if not isinstance(region, Region):
                raise UsageError(f"an object must be a Region, not {type(region).__name__}")
            if len(region.mask) not in self.mask_sides:
                sides = ", ".join(map(str, self.mask_sides))
                raise UsageError(
                    f"masks of profile {self.name} have a side of {sides}, not {len(region.mask)}"
                )
        Description(caption or "", objects)

    def reading_notes(self, file: Picogram) -> tuple[str, ...]:
        """What to tell about a file of this profile that is shown as the picture of its latent and its words.

        UnsupportedProfile if it has a section that the profile does not know.
        """
        present = (*file.optional, *file.damaged)
        for name in present:
            if name not in self.sections:
                raise UnsupportedProfile(f"a file of profile {self.name} cannot have a section of {name}")
        return tuple(f"the file has no {name}" for name in self.required if name not in present)


def decode_route(file: Picogram) -> Route:
    """The words come first, for a decoder may draw by them."""
    return ("lmm:read", "decoder") if _has_words(file) else ("decoder",)


def inspect_route(file: Picogram) -> Route:
    """Only a file with words needs more than its header."""
    return ("lmm:read", "inspector") if _has_words(file) else ("inspector",)


def _has_words(file: Picogram) -> bool:
    """Also damaged ones: whoever reads them says so."""
    return bool(file.optional or file.damaged)
