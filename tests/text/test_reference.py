# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What the library writes as words, the reader made from docs/text.md alone reads: texts, objects and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from reference_text_reader import LanguageModel, StaticModel, read_objects, read_text

import picogram
from picogram.models import store
from picogram.semantics.description import Region, objects_text
from picogram.semantics.objects import join_objects
from picogram.text.coder import TextCoder

LIBRARY = Path(picogram.__file__).parent
MASK_COUNTS = (LIBRARY / "semantics" / "mask_counts.bin").read_bytes()
SHORT = "A brown dog runs across the grass."
TEXTS = ["", SHORT, "Zwei Häuser\nam Fluß, 日本 👍🏽", "one two three " * 150]


@pytest.fixture(scope="module")
def static() -> StaticModel:
    return StaticModel(LIBRARY / "text" / "static_model.bin")


@pytest.fixture(scope="module")
def coder() -> TextCoder:
    if not store.text_available():
        pytest.skip("the language model has not been pulled")
    from picogram.text.lm.loading_lm import load_lm_coder

    return TextCoder(load_lm_coder())


@pytest.fixture(scope="module")
def language(coder: TextCoder) -> LanguageModel:
    prompts = LIBRARY / "models" / "weights" / "text-1.safetensors"
    return LanguageModel(store.text_model_file(), store.tokenizer_file(), prompts)


def disc(side: int) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:side, :side] / side
    inside: npt.NDArray[np.bool_] = (y - 0.4) ** 2 + (x - 0.6) ** 2 < 0.1
    return inside


def noise(side: int) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(side).random((side, side)) < 0.5


REGIONS = [
    Region("dog", "black, wet: it swam", disc(8)),
    Region("ball", "", disc(64)),
    Region("pebbles", "grey", noise(16)),
    Region("grass", "", noise(32)),
]


@pytest.mark.parametrize("name", ["static", "raw"])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_without_a_language_model(name: str, text: str, static: StaticModel) -> None:
    (coded,) = TextCoder().encode([text], coders=(name,))
    assert coded.coder == name
    assert read_text(coded.section, static) == text


def test_objects_with_smooth_and_noisy_masks(static: StaticModel) -> None:
    (coded,) = TextCoder().encode([objects_text(REGIONS)], coders=("static",))
    section = join_objects(coded.section, REGIONS)
    found = read_objects(section, static, MASK_COUNTS)
    assert [(name, detail) for name, detail, _ in found] == [(r.name, r.detail) for r in REGIONS]
    for (_, _, mask), region in zip(found, REGIONS, strict=True):
        np.testing.assert_array_equal(mask, region.mask)


@pytest.mark.lmm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("short", SHORT),
        ("dense", "Two boats lie at anchor; the sea is calm."),
        ("plain", "Zwei Häuser, 👍🏽"),
        ("short", "One\ntwo"),
    ],
)
def test_texts_by_the_language_model(
    kind: str, text: str, coder: TextCoder, static: StaticModel, language: LanguageModel
) -> None:
    (coded,) = coder.encode([text], coders=("exact-lm",), kinds=(kind,))
    assert (coded.coder, coded.kind) == ("exact-lm", kind)
    assert read_text(coded.section, static, language) == text


@pytest.mark.lmm
@pytest.mark.slow
def test_objects_by_the_language_model(
    coder: TextCoder, static: StaticModel, language: LanguageModel
) -> None:
    (coded,) = coder.encode([objects_text(REGIONS[1:2])], coders=("exact-lm",), kinds=("objects",))
    assert coded.kind == "objects"
    section = join_objects(coded.section, REGIONS[1:2])
    ((name, detail, mask),) = read_objects(section, static, MASK_COUNTS, language)
    assert (name, detail) == ("ball", "")
    np.testing.assert_array_equal(mask, REGIONS[1].mask)
