# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Words written once read for ever, with every kernel; and the writer still makes the same bytes of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from make_golden import latent_hash, latent_integers
from make_golden_words import FOLDER, SECTIONS, said, sections
from reference_reader import Reader, parse_by_table
from reference_text_reader import LanguageModel, StaticModel, read_objects, read_text
from safetensors.torch import load_file

import picogram
from picogram.bitstream import parse
from picogram.exact.split_linear import SplitKernel, int8_is_exact
from picogram.models import latent_weights
from picogram.models.store import text_available, text_model_file, tokenizer_file
from picogram.profiles.registry import PROFILES
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
    from picogram.text.lm.loading_lm import load_lm_coder

    found = TextCoder(load_lm_coder()).decode([stored(name) for name in SECTIONS])
    assert found == list(SECTIONS.values())
    assert sections() == MANIFEST["sections"]


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["int8", "float32", "float64"])
def test_a_section_decodes_alone_with_every_kernel(kernel: SplitKernel) -> None:
    from picogram.text.lm.exact_lm import ExactLM
    from picogram.text.lm.lm_coder import LMCoder
    from picogram.text.lm.loading_lm import load_lm_coder

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
def test_files_with_words_decode_to_the_same_latents(name: str) -> None:
    file = (FOLDER / name).read_bytes()
    assert latent_hash(file) == MANIFEST["files"][name]["latent_sha256"]
    found = Reader(latent_weights(parse_by_table(file)["model"])).latent(file)
    assert np.array_equal(found, latent_integers(file))


def test_every_profile_with_words_has_a_golden_file() -> None:
    profiles = {parse((FOLDER / name).read_bytes()).header.profile for name in FILES}
    assert profiles == {spec.code for spec in PROFILES.values() if spec.sections}
    sides = [[side for *_, side, _ in MANIFEST["files"][name]["objects"]] for name in FILES]
    assert sorted(sides) == [[], [], [8, 8], [8, 8], [16, 32]]


@needs_model
@pytest.mark.lmm
@pytest.mark.slow
@pytest.mark.parametrize("name", ["t1-chelsea-misc.pico", "t1-rocket-sedic.pico"])
def test_the_reader_written_from_the_document_reads_golden_words(name: str) -> None:
    library = Path(picogram.__file__).parent
    static = StaticModel(library / "text" / "static_model.bin")
    prompts = library / "models" / "weights" / "text-1.safetensors"
    language = LanguageModel(text_model_file(), tokenizer_file(), prompts)
    counts = (library / "semantics" / "mask_counts.bin").read_bytes()
    sections = parse((FOLDER / name).read_bytes()).optional
    expected = MANIFEST["files"][name]
    assert read_text(sections["caption"], static, language) == expected["caption"]
    found = read_objects(sections["objects"], static, counts, language)
    plain = [[n, detail, len(mask), np.packbits(mask).tobytes().hex()] for n, detail, mask in found]
    assert plain == expected["objects"]


@pytest.mark.parametrize("name", FILES)
def test_files_with_words_show_their_picture_without_the_model(name: str) -> None:
    file = (FOLDER / name).read_bytes()
    assert hashlib.sha256(file).hexdigest() == MANIFEST["files"][name]["sha256"]
    found = picogram.decode_detailed(file, steps=0, words=Words(coder=TextCoder()))
    assert min(found.picture.size) == 300 or found.picture.size == (640, 427)
    assert any("picogram models pull text" in warning for warning in found.warnings)
