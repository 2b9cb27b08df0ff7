# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Sections written by either engine are the same bytes, and either reads them, alone and in company."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from sentences import CAPTIONS, HARD

from picogram.errors import CorruptBitstream, PicogramError
from picogram.text.coder import TextCoder
from picogram.text.fixed import fixed_symbol
from picogram.text.lm.lm_coder import MAX_TOKENS, Candidate
from picogram.text.lm.mode import Mode
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

pytest.importorskip("vllm")

from vllm import SamplingParams

from picogram_lmm.coding_processor import SCRIPTS, CodingProcessor, ReadingScript, WritingScript

if TYPE_CHECKING:
    from picogram.text.lm.lm_coder import LMCoder
    from picogram_lmm.exact_coder import VllmLMCoder

EXACT = ("exact-lm",)


def best(candidates: list[Candidate]) -> bytes:
    """The stream of the last candidate."""
    encoder = WideRangeEncoder()
    for part in candidates[-1].symbols:
        encoder.encode(*part)
    return encoder.finish()


def test_24_captions_are_the_same_bytes_from_both_engines(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder
) -> None:
    kinds = [["short", "dense", "plain"][: 1 + i % 3] for i in range(len(CAPTIONS))]
    assert vllm_coder.candidates(CAPTIONS, kinds) == torch_coder.candidates(CAPTIONS, kinds)


@pytest.mark.parametrize("company", [1, 24])
def test_captions_written_by_one_engine_are_read_by_the_other(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder, company: int
) -> None:
    vllm, plain = TextCoder(lm=vllm_coder), TextCoder(lm=torch_coder)
    texts = CAPTIONS[:company]
    for writer, reader in ((vllm, plain), (plain, vllm)):
        sections = [c.section for c in writer.encode(texts, coders=EXACT)]
        assert reader.decode(sections[::-1]) == list(texts[::-1])


def test_a_batch_is_read_one_by_one_and_the_reverse(vllm_coder: VllmLMCoder) -> None:
    coder = TextCoder(lm=vllm_coder)
    together = [c.section for c in coder.encode(CAPTIONS[:6], coders=EXACT)]
    alone = [coder.encode([text], coders=EXACT)[0].section for text in CAPTIONS[:6]]
    assert together == alone
    assert [coder.decode([section])[0] for section in together] == list(CAPTIONS[:6])


def test_texts_of_every_kind_survive(vllm_coder: VllmLMCoder, torch_coder: LMCoder) -> None:
    sections = [c.section for c in TextCoder(lm=vllm_coder).encode(HARD, coders=EXACT)]
    assert TextCoder(lm=torch_coder).decode(sections) == list(HARD)


def test_texts_that_outgrow_the_cache_survive(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows of four pages do not fit in 20: the engine puts some aside and computes them again."""
    texts = [f"{i}: " + "abcdefg hij " * 34 for i in range(8)]
    sections = [c.section for c in TextCoder(lm=torch_coder).encode(texts, coders=EXACT, kinds=["short"])]
    begun, begin = [], CodingProcessor.new_req_logits_processor

    def counted(self: CodingProcessor, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        begun.append(params)
        return begin(self, params)

    monkeypatch.setattr(CodingProcessor, "new_req_logits_processor", counted)
    assert TextCoder(lm=vllm_coder).decode(sections) == texts
    assert len(begun) > len(texts)


def test_noise_gives_errors_and_leaves_neighbours_alone(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder
) -> None:
    good = TextCoder(lm=torch_coder).encode([CAPTIONS[0]], coders=EXACT, kinds=["short"])[0].section
    noise = [good[:2] + bytes((37 * i + k) % 256 for k in range(40)) for i in range(2)]
    expected = TextCoder(lm=torch_coder).decode([*noise, good])
    found = TextCoder(lm=vllm_coder).decode([*noise, good])
    assert [str(text) for text in found] == [str(text) for text in expected]
    assert any(isinstance(text, PicogramError) for text in found)
    assert found[-1] == CAPTIONS[0]


def test_a_text_without_end_is_given_up(vllm_coder: VllmLMCoder) -> None:
    mode, encoder = Mode("plain"), WideRangeEncoder()
    ids = [200 + i % 50 for i in range(MAX_TOKENS + 1)]
    cache = vllm_coder.start([mode], len(ids))
    hidden = vllm_coder.model.forward(vllm_coder.model.embed(torch.tensor([[0, *ids[:-1]]])), cache)[0]
    writing = WritingScript(ids)
    for index, logits in enumerate(vllm_coder.model.logits(hidden).numpy()):
        writing.step(index, logits)
    for part in writing.symbols:
        encoder.encode(*part)
    reading = ReadingScript(WideRangeDecoder(encoder.finish()), mode.end, MAX_TOKENS)
    vllm_coder.engine.run([vllm_coder.prompt("plain")], [reading], [mode.end], [MAX_TOKENS + 1])
    reading.finish()
    assert isinstance(reading.error, CorruptBitstream)


def test_reading_can_be_stopped_and_leaves_the_engine_free(vllm_coder: VllmLMCoder) -> None:
    steps = iter([False, False, True])
    stream = best(vllm_coder.candidates([CAPTIONS[0]], [["short"]])[0])
    found = vllm_coder.read([WideRangeDecoder(stream)], stop=lambda: next(steps))
    assert found[0] != CAPTIONS[0]
    assert not SCRIPTS
    assert not vllm_coder.engine.llm.llm_engine.has_unfinished_requests()
    assert vllm_coder.read([WideRangeDecoder(stream)]) == [CAPTIONS[0]]


def test_a_step_may_be_asked_for_twice() -> None:
    """As happens when vLLM splits a prompt: the first call sees logits that mean nothing."""
    g = torch.Generator().manual_seed(1)
    rows = torch.randint(-4000, 4001, (4, 512), generator=g).double().numpy()
    junk = torch.randint(-4000, 4001, (512,), generator=g).double().numpy()
    once, twice = WritingScript([300, 301, 302, 198]), WritingScript([300, 301, 302, 198])
    for index, row in enumerate(rows):
        once.step(index, row)
        twice.step(index, junk)
        twice.step(index, row)
    assert once.symbols == twice.symbols
    encoder = WideRangeEncoder()
    for part in (*once.symbols, fixed_symbol((1, 1, 1, 1), 2)):
        encoder.encode(*part)
    decoder = WideRangeDecoder(encoder.finish())
    reading = ReadingScript(decoder, 198, 10)
    for index, row in enumerate(rows):
        reading.step(index, junk)
        assert reading.step(index, row) == [300, 301, 302, 198][index]
    reading.finish()
    assert (reading.ids, reading.error) == ([300, 301, 302], None)
    assert decoder.target(4) == 2
