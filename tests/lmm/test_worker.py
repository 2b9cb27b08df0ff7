# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The worker on vLLM: jobs go through its handler, and what it writes is read without vLLM, and the reverse."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from sentences import CAPTIONS

from picogram.errors import ModelMissing
from picogram.images import read_image
from picogram.jobs import Job, Result
from picogram.pipeline.handovers import WordsToWrite
from picogram.semantics.description import Description
from picogram.semantics.words import Words
from picogram.text.coder import TextCoder
from picogram.text.lm.loading_lm import load_lm_coder

pytest.importorskip("vllm")

from picogram_lmm.lmm_handler import LmmHandler
from picogram_lmm.vllm_words import vllm_words

if TYPE_CHECKING:
    from picogram.text.lm.lm_coder import LMCoder
    from picogram_lmm.exact_coder import VllmLMCoder


class Colours:
    """Describes a picture by its first pixel."""

    def describe(
        self, pictures: Sequence[Image.Image], objects: bool = True, side: int = 8
    ) -> list[Description]:
        return [Description(f"The colour is {p.getpixel((0, 0))}.") for p in pictures]


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "PNG")
    return file.getvalue()


def run(handler: LmmHandler, task: str, payloads: Sequence[bytes], **options: object) -> list[Result]:
    outcomes = handler([Job("encode", p, (f"lmm:{task}",), {"profile": "stc", **options}) for p in payloads])
    assert all(isinstance(o, Result) for o in outcomes), outcomes
    return [o for o in outcomes if isinstance(o, Result)]


def test_pictures_are_described_and_their_words_coded(vllm_coder: VllmLMCoder, torch_coder: LMCoder) -> None:
    handler = LmmHandler(Words(TextCoder(lm=vllm_coder), Colours()))
    pictures = [png(c) for c in ("red", "green", "blue")]
    captions = [json.loads(r.payload)["caption"] for r in run(handler, "describe", pictures)]
    expected = [d.caption for d in Colours().describe([read_image(p) for p in pictures])]
    assert captions == expected
    left = [WordsToWrite.of(r.metadata) for r in run(handler, "code", pictures)]
    coded = [words.prepared.variants[0].sections.optional["caption"] for words in left if words]
    assert TextCoder(lm=torch_coder).decode(coded) == expected


def test_threads_share_the_engine(vllm_coder: VllmLMCoder, torch_coder: LMCoder) -> None:
    coder, found = TextCoder(lm=vllm_coder), {}
    sections = [c.section for c in TextCoder(lm=torch_coder).encode(CAPTIONS[:8], coders=("exact-lm",))]

    def read(start: int) -> None:
        found[start] = coder.decode(sections[start::4])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: list(CAPTIONS[i:8:4]) for i in range(4)}


@pytest.mark.lmm
def test_the_shipped_model_writes_and_reads_the_same_on_both_engines() -> None:
    try:
        plain = TextCoder(lm=load_lm_coder())
        words = vllm_words()
    except ModelMissing as error:
        pytest.skip(str(error))
    descriptions = [Description(caption) for caption in CAPTIONS]
    in_vllm = [s.caption for s in words.code(descriptions)]
    in_torch = [c.section for c in plain.encode(CAPTIONS)]
    assert in_vllm == in_torch
    assert plain.decode([s for s in in_vllm if s]) == list(CAPTIONS)
