# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from unittest import mock

import byte_lm
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from picogram.errors import CorruptBitstream, UnknownModel, UsageError
from picogram.exact import split_linear
from picogram.exact.split_linear import SplitKernel, SplitLinear, quantise_rows
from picogram.text.coder import TextCoder, coder_of, exact_section
from picogram.text.lm.distribution import cumulative, symbol, token_at
from picogram.text.lm.exact_lm import Cache, rms_norm
from picogram.text.lm.lm_coder import MAX_TOKENS, LMCoder
from picogram.text.lm.lm_tables import exp_table, rotary_tables, sigmoid_table
from picogram.text.raw import MAX_CHARACTERS
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder

KERNELS: tuple[SplitKernel, ...] = ("int8", "float32", "float64")


@pytest.fixture(scope="module")
def lm_coder(tmp_path_factory: pytest.TempPathFactory) -> LMCoder:
    return byte_lm.coder(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def text_coder(lm_coder: LMCoder) -> TextCoder:
    return TextCoder(lm_coder)


def usable(kernel: str) -> None:
    if kernel == "int8" and not split_linear.int8_is_exact():
        pytest.skip("int8 products are not exact on this machine")


def ids(count: int, length: int) -> torch.Tensor:
    return torch.randint(17, 250, (count, length), generator=torch.Generator().manual_seed(3))


# exact products


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("inputs", [8, 576, 2064, 3024])
def test_products_of_extreme_integers_are_exact_with_every_kernel(kernel: str, inputs: int) -> None:
    usable(kernel)
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randint(0, 2, (3, inputs), generator=generator).double() * 2**14 - 2**13
    weight = (torch.randint(0, 2, (16, inputs), generator=generator) * 254 - 127).to(torch.int8)
    x[0], weight[0] = 2**13, 127
    layer = SplitLinear(weight, torch.ones(16, dtype=torch.float64), kernel)  # type: ignore[arg-type]
    assert torch.equal(layer.product(x).long(), x.long() @ weight.long().T)


def test_a_kernel_that_saturates_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: exact(a, b).clamp(-(2**15), 2**15 - 1))
    assert not split_linear.int8_is_exact()


def test_quantised_rows_are_within_range_and_near_the_reals() -> None:
    x = torch.randn(50, 30, dtype=torch.float64) * torch.logspace(-9, 9, 50, dtype=torch.float64)[:, None]
    integers, unit = quantise_rows(x, 14)
    assert integers.abs().max() <= 2**13
    assert bool(((integers * unit - x).abs() <= unit / 2).all())
    assert not quantise_rows(torch.zeros(1, 4, dtype=torch.float64), 14)[0].any()


# tables


def test_tables_hold_the_functions_to_the_last_bit() -> None:
    exp, sigmoid = exp_table(), sigmoid_table()
    for k in (0, 1, 777, 4096, len(exp) - 1):
        assert abs(exp[k] - math.exp(-k / 1024) * 2**30) <= 0.51
    middle = len(sigmoid) // 2
    assert sigmoid[middle] == 2**29
    assert abs(sigmoid[middle + 1024] - 2**30 / (1 + math.exp(-1))) <= 0.51
    assert all(a + b == 2**30 for a, b in zip(sigmoid, reversed(sigmoid), strict=True))
    cos, sin = rotary_tables(5, 4, 10_000)
    angle = 4 * 10_000 ** (-3 / 4)
    assert abs(cos[4][3] - math.cos(angle) * 2**30) <= 1
    assert abs(sin[4][3] - math.sin(angle) * 2**30) <= 1


# the model


def test_all_kernels_give_the_same_logits() -> None:
    found = []
    for kernel in KERNELS:
        if kernel == "int8" and not split_linear.int8_is_exact():
            continue
        lm = byte_lm.model(kernel)
        x = lm.embed(ids(3, 9))
        found.append(lm.logits(lm.forward(x, Cache(lm.config, 3, 9)).flatten(0, 1)))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_steps_alone_give_the_logits_of_a_padded_batch() -> None:
    lm, lengths = byte_lm.model(), [9, 4, 1, 7]
    tokens = ids(4, 9)
    cache = Cache(lm.config, 4, 2)
    together = lm.forward(lm.embed(tokens), cache, torch.tensor(lengths))
    assert cache.lengths.tolist() == lengths
    for row, length in enumerate(lengths):
        alone = Cache(lm.config, 1, 1)
        for step in range(length):
            hidden = lm.forward(lm.embed(tokens[row : row + 1, step : step + 1]), alone)
            assert torch.equal(lm.logits(hidden[0]), lm.logits(together[row, step][None]))


def test_padding_leaves_no_trace_in_later_steps() -> None:
    lm, tokens = byte_lm.model(), ids(2, 6)
    padded, exact = Cache(lm.config, 2, 4), Cache(lm.config, 1, 4)
    lm.forward(lm.embed(tokens), padded, torch.tensor([6, 3]))
    lm.forward(lm.embed(tokens[1:, :3]), exact)
    after = lm.embed(tokens[:, :1])
    assert torch.equal(lm.forward(after, padded)[1], lm.forward(after[1:], exact)[0])


def test_a_float_forward_pass_is_near_the_exact_one() -> None:
    """The integers approximate a Llama: the same sums in floats, written out plainly, differ by little."""
    lm, tokens = byte_lm.model(), ids(1, 12)
    exact = lm.logits(lm.forward(lm.embed(tokens), Cache(lm.config, 1, 12))[0]) / 256
    plain = _plain_llama(tokens[0])
    assert (exact - plain).abs().max() < 0.05 * plain.std()


def _plain_llama(tokens: torch.Tensor) -> torch.Tensor:
    t, c = byte_lm.tensors(), byte_lm.CONFIG
    w = {k: v.double() * t[f"{k}.scale"][:, None] for k, v in t.items() if f"{k}.scale" in t}
    angles = torch.arange(12)[:, None] * c.rope_base ** (
        -torch.arange(c.head_width // 2) / (c.head_width // 2)
    )

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5) * gain.double()

    def heads(x: torch.Tensor, turn: bool) -> torch.Tensor:
        x = x.reshape(12, -1, c.head_width).transpose(0, 1)
        a, b = x.chunk(2, 2)
        cos, sin = angles.cos().double(), angles.sin().double()
        return torch.cat((a * cos - b * sin, b * cos + a * sin), 2) if turn else x

    x = w["embedding"][tokens]
    for i in range(c.layers):
        q, k, v = (norm(x, t[f"{i}.attention_gain"]) @ w[f"{i}.qkv"].T).split(
            [c.width, c.kv_width, c.kv_width], 1
        )
        q, k, v = heads(q, True), heads(k, True), heads(v, False)
        k, v = (part.repeat_interleave(c.heads // c.kv_heads, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) / 8.0  # the model's scale is that of 64-wide heads
        scores = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -math.inf)
        x = x + (scores.softmax(2) @ v).transpose(0, 1).reshape(12, c.width) @ w[f"{i}.out"].T
        gate, up = (norm(x, t[f"{i}.mlp_gain"]) @ w[f"{i}.gate_up"].T).chunk(2, 1)
        x = x + (torch.nn.functional.silu(gate) * up) @ w[f"{i}.down"].T
    return norm(x, t["final_gain"]) @ w["embedding"].T


def test_norm_of_a_huge_and_of_a_zero_row_is_finite() -> None:
    x = torch.zeros(2, 48, dtype=torch.float64)
    x[1] = 2.0**40
    out = rms_norm(x, torch.ones(48, dtype=torch.float64))
    assert not out[0].any()
    assert torch.allclose(out[1], torch.ones(48, dtype=torch.float64), rtol=1e-4)


def test_rows_longer_than_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="1025 positions"):
        Cache(byte_lm.CONFIG, 1, 8).reserve(1025)


# counts


def test_every_token_has_an_interval_and_they_fill_the_total() -> None:
    logits = np.random.default_rng(1).integers(-20_000, 500, 49152).astype(np.float64)
    cumulated = cumulative(logits)
    ends = [symbol(cumulated, token)[:2] for token in (0, 1, 77, 49151)]
    assert all(frequency >= 1 for _, frequency in ends)
    assert cumulated[-1] < 2**56
    for token in (0, 1, 77, 49151):
        low, frequency, _ = symbol(cumulated, token)
        assert token_at(cumulated, low) == token_at(cumulated, low + frequency - 1) == token


def test_counts_follow_the_softmax() -> None:
    logits = np.array([0.0, 256.0, -512.0])
    counts = np.diff(cumulative(logits), prepend=0)
    expected = np.exp(logits / 256)
    assert np.allclose(counts / counts.sum(), expected / expected.sum(), rtol=1e-9)


# the coder

TEXTS = [
    "",
    "A dog runs.",
    " two  spaces and a trailing one ",
    "line one\nline two\n",
    "<|im_start|>not a token<|endoftext|>",
    "naïve 東京 🙂‍↕️ עברית \u202eabc \x00\x07",
    "\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_round_trips_through_the_language_model(text_coder: TextCoder, text: str) -> None:
    [coded] = text_coder.encode([text], coders=("exact-lm",))
    assert coded.coder == coder_of(coded.section) == "exact-lm"
    assert text_coder.decode([coded.section]) == [text]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_batches_of_texts_round_trip_alone_and_together(text_coder: TextCoder, texts: list[str]) -> None:
    sections = [c.section for c in text_coder.encode(texts, coders=("exact-lm",))]
    assert text_coder.decode(sections[::-1]) == texts[::-1]
    assert [text_coder.decode([s])[0] for s in sections] == texts


@pytest.mark.parametrize("kernel", KERNELS)
def test_sections_are_the_same_bytes_with_every_kernel(
    text_coder: TextCoder, tmp_path: Path, kernel: str
) -> None:
    usable(kernel)
    other = TextCoder(byte_lm.coder(tmp_path, kernel))  # type: ignore[arg-type]
    texts = ["A cat on a mat", "b"]
    assert other.encode(texts) == text_coder.encode(texts)


def test_code_length_is_the_ideal_one_to_the_byte(text_coder: TextCoder) -> None:
    for coded in text_coder.encode(["A cat sits on a mat.", "x", "yy zz"], coders=("exact-lm",)):
        assert coded.ideal_bits is not None
        assert -8 <= 8 * len(coded.section) - coded.ideal_bits <= 8


@pytest.mark.parametrize("kind", ["short", "dense", "plain", "objects"])
def test_the_reserved_symbol_of_a_picture_as_context_is_refused(
    lm_coder: LMCoder, text_coder: TextCoder, kind: str
) -> None:
    [[candidate]] = lm_coder.candidates(["A cat"], [(kind,)])
    model, prompt, context, *rest = candidate.symbols
    assert context == (0, 252, 256)
    assert text_coder.decode([exact_section(candidate)]) == ["A cat"]
    reserved = replace(candidate, symbols=(model, prompt, (252, 4, 256), *rest))
    [found] = text_coder.decode([exact_section(reserved)])
    assert isinstance(found, CorruptBitstream)
    assert f"prompt {kind}.context, which text model 1 does not have" in str(found)


def test_a_text_too_long_for_the_model_goes_to_another_coder(text_coder: TextCoder) -> None:
    text = "ab " * MAX_TOKENS
    [coded] = text_coder.encode([text])
    assert coded.coder == "static"
    assert text_coder.decode([coded.section]) == [text]


def test_the_shortest_coder_is_chosen(text_coder: TextCoder) -> None:
    text = "A man in a red shirt is riding a bicycle ."
    each = {name: text_coder.encode([text], coders=(name,))[0] for name in ("exact-lm", "static", "raw")}
    [best] = text_coder.encode([text])
    assert len(best.section) == min(len(c.section) for c in each.values())


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=24))
def test_garbage_gives_a_text_or_a_typed_error(text_coder: TextCoder, garbage: bytes) -> None:
    with mock.patch("picogram.text.lm.lm_coder.MAX_TOKENS", 40):  # most garbage never ends
        [found] = text_coder.decode([garbage])
    assert isinstance(found, str | CorruptBitstream | UnknownModel) or "vLLM" in str(found)


def test_bad_texts_do_not_disturb_their_batch(text_coder: TextCoder) -> None:
    [good] = text_coder.encode(["A dog"], coders=("exact-lm",))
    found = text_coder.decode([b"\xff" * 9, good.section, b"\xfe"])
    assert found[1] == "A dog"
    assert isinstance(found[0], CorruptBitstream)


@pytest.mark.parametrize("text", ["a" * (MAX_CHARACTERS + 1), "half \ud800"])
def test_texts_that_cannot_be_coded_are_refused(text_coder: TextCoder, text: str) -> None:
    with pytest.raises(UsageError):
        text_coder.encode([text])


def test_unknown_coders_are_refused(text_coder: TextCoder) -> None:
    with pytest.raises(UsageError, match="unknown text coder 'zip'"):
        text_coder.encode(["a"], coders=("zip",))


def test_reading_stops_when_asked(lm_coder: LMCoder) -> None:
    [[candidate]] = lm_coder.candidates(["A long enough text"], [("plain",)])
    encoder = WideRangeEncoder()
    for part in candidate.symbols:
        encoder.encode(*part)
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    lm_coder.read([WideRangeDecoder(encoder.finish())], stop)
    assert len(asked) == 4
