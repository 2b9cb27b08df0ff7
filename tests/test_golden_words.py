# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words written once read for ever, with every kernel; and the writer still makes the same bytes of them."""

from __future__ import annotations

import hashlib
import json

import pytest
from make_golden_words import FOLDER, SECTIONS, said, sections
from safetensors.torch import load_file

import picogram
from picogram.exact.split_linear import SplitKernel, int8_is_exact
from picogram.models.store import text_available, text_model_file
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder, coder_of

MANIFEST = json.loads((FOLDER / "words.json").read_text())
FILES = sorted(MANIFEST["files"])
needs_model = pytest.mark.skipif(not text_available(), reason="run `picogram models pull text`")


def stored(name: str) -> bytes:
    return bytes.fromhex(MANIFEST["sections"][name]["section"])


def test_every_coder_has_a_golden_section() -> None:
    assert sorted(MANIFEST["sections"]) == sorted(SECTIONS)
    assert {coder_of(stored(name)) for name in SECTIONS} == {"exact-lm", "static", "raw"}


@pytest.mark.parametrize("name", ["static", "raw"])
def test_sections_without_a_model_decode_as_ever(name: str) -> None:
    assert TextCoder().decode([stored(name)]) == [SECTIONS[name]]
    assert TextCoder().encode([SECTIONS[name]], coders=(name,))[0].section == stored(name)


@needs_model
def test_all_sections_decode_in_one_batch_and_are_written_alike() -> None:
    from picogram.text.lm.load import load_lm_coder

    found = TextCoder(load_lm_coder()).decode([stored(name) for name in SECTIONS])
    assert found == list(SECTIONS.values())
    assert sections() == MANIFEST["sections"]


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["int8", "float32", "float64"])
def test_a_section_decodes_alone_with_every_kernel(kernel: SplitKernel) -> None:
    from picogram.text.lm.coder import LMCoder
    from picogram.text.lm.load import load_lm_coder
    from picogram.text.lm.model import ExactLM

    if kernel == "int8" and not int8_is_exact():
        pytest.skip("int8 products are not exact on this machine")
    shipped = load_lm_coder()
    model = ExactLM(load_file(text_model_file()), kernel=kernel)
    coder = TextCoder(LMCoder(model, shipped.tokens, shipped.prompts))
    assert coder.decode([stored("objects")]) == [SECTIONS["objects"]]


@needs_model
@pytest.mark.parametrize("name", FILES)
def test_files_with_words_say_what_they_said(name: str) -> None:
    file = (FOLDER / name).read_bytes()
    assert said(file) == MANIFEST["files"][name]


@pytest.mark.parametrize("name", FILES)
def test_files_with_words_show_their_picture_without_the_model(name: str) -> None:
    file = (FOLDER / name).read_bytes()
    assert hashlib.sha256(file).hexdigest() == MANIFEST["files"][name]["sha256"]
    found = picogram.decode_detailed(file, words=Words(coder=TextCoder()))
    assert min(found.picture.size) == 300 or found.picture.size == (640, 427)
    assert any("picogram models pull text" in warning for warning in found.warnings)
