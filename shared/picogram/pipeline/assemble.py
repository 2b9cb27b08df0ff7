# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The second step of encoding: the file of a picture whose words are ready.

    picture, PreparedWords ── assemble ──> Encoded     the latent gets what the words leave of the budget, and the hints

A captioner's words share a twentieth of the budget: what is too much goes, with a warning each. Where no words are left,
the file is one of profile ``base``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from picogram.errors import BudgetTooSmall
from picogram.latent.focus import Focus
from picogram.pipeline import rates
from picogram.pipeline.prepare import Hints, PreparedWords, WordsVariant
from picogram.profiles import base
from picogram.request import MOST_QUALITY, EncodeOptions
from picogram.results import Encoded

MAX_WORDS_SHARE = 0.05
"""Of a byte budget, for words that no caller gave: up to there they cost a picture nothing measurable, and beyond
there is no sign that they would pay (docs/ablations.md)."""


def assemble(
    picture: Image.Image,
    prepared: PreparedWords,
    options: EncodeOptions,
    progress: rates.Progress | None = None,
) -> Encoded:
    """The file of an RGB picture. ``progress``: see ``picogram.pipeline.rates.FilePlan``. Loads no language model.

    Raises BudgetTooSmall, which names the smallest size that would do, if words that were given leave too little.
    """
    budget, warnings = budget_of(options, picture), [*prepared.warnings]
    hints = prepared.hints
    if options.focus is not None and not isinstance(options.focus, str):  # needs no models, unlike words
        hints = replace(hints, focus=Focus.of(options.focus))
    *optional, last = prepared.variants
    problem = ""
    for variant in optional:
        warnings += [f"{variant.lost} left out: {problem}"] if problem else []
        if budget is not None and variant.size - last.size > MAX_WORDS_SHARE * budget:
            problem = f"the words would take {variant.size} of {budget} bytes"
            continue
        try:
            return _encoded(picture, variant, options, hints, warnings, progress)
        except BudgetTooSmall:
            problem = f"the words leave too little of {budget} bytes for the picture"
    warnings += [f"{last.lost} left out: {problem}"] if problem else []
    return _encoded(picture, last, options, hints, warnings, progress)


def budget_of(options: EncodeOptions, picture: Image.Image) -> int | None:
    """Bytes of the whole file; None where quality decides."""
    if options.bpp is not None:
        return math.floor(options.bpp * picture.width * picture.height / 8)
    return options.bytes


def _encoded(
    picture: Image.Image,
    variant: WordsVariant,
    options: EncodeOptions,
    hints: Hints,
    warnings: Sequence[str],
    progress: rates.Progress | None,
) -> Encoded:
    words, spec, budget = variant.sections.optional, options.spec, budget_of(options, picture)
    if not all(name in words for name in spec.required):
        spec = base.PROFILE
    plan = rates.FilePlan(spec.code, words, hints, options.effort, progress)
    if budget is None:
        rate = round(options.quality_or_default / MOST_QUALITY * rates.FINEST_RATE)
        data = rates.encode_quality(picture, rate, plan)
    else:
        data = rates.encode_within(picture, budget, plan)
    return Encoded(data, variant.description, variant.sections.coders, hints.heard, tuple(warnings))
