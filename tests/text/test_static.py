# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The torch-free text coders: every text comes back, captions are cheap, damage has a name, the model can be relearnt."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import zlib
from collections import Counter
from contextlib import suppress
from importlib import resources
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogram.errors import CorruptBitstream, ModelDamaged, UsageError
from picogram.text import raw, static
from picogram.text.raw import MAX_TEXT_BYTES
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder
from training.words import train_static
from training.words.train_static import StaticRecipe

CODERS = [raw, static]
AWKWARD = [
    *("", " ", "a", "\n", "\0", "\r\n\t", "A dog\nruns.", "\x7f\x80\x9f", "\ufeff", "\uffff\U0010ffff"),
    *(
        "שלום עולם",
        "كلب بني يركض",
        "\u202ertl\u202c",
        "👍🏽👨‍👩‍👧‍👦",
        "一只棕色的狗",
        "e\u0301 é",
        "x" * 3000,
    ),
    *("<|im_end|>", "the the the the", "  two  spaces  ", "Ünïcödé", "\U0001f600" * 300),
]
CAPTION = "A brown dog is running through the grass ."
DESCRIPTION = (
    "The image features a wooden boat resting on a quiet beach. Two men in hats are standing next to the boat, "
    "one of them holding a rope. In the background there are several houses on a hill, and the sky is cloudy. "
    "The scene suggests a calm morning by the sea."
)


def coded(coder: ModuleType, text: str) -> bytes:
    encoder = WideRangeEncoder()
    coder.write(encoder, text)
    return encoder.finish()


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    static.static_model()  # so that no example is charged for it


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_round_trip(coder: ModuleType, text: str) -> None:
    assert coder.read(WideRangeDecoder(coded(coder, text))) == text


@settings(deadline=None)
@given(st.sampled_from(CODERS), st.text())
def test_any_text_round_trips(coder: ModuleType, text: str) -> None:
    assert coder.read(WideRangeDecoder(coded(coder, text))) == text


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CODERS), st.text(max_size=30)), max_size=5))
def test_texts_follow_one_another_in_a_stream(parts: list[tuple[ModuleType, str]]) -> None:
    encoder = WideRangeEncoder()
    for coder, text in parts:
        coder.write(encoder, text)
    decoder = WideRangeDecoder(encoder.finish())
    assert [coder.read(decoder) for coder, _ in parts] == [text for _, text in parts]


@settings(deadline=None)
@given(st.sampled_from(CODERS), st.one_of(st.binary(max_size=100), st.just(b"\xff" * 99)))
def test_any_bytes_give_a_text_or_a_named_error(coder: ModuleType, data: bytes) -> None:
    with suppress(CorruptBitstream):
        assert isinstance(coder.read(WideRangeDecoder(data)), str)


def test_captions_are_cheap() -> None:
    assert 8 * len(coded(static, CAPTION)) <= 2.2 * len(CAPTION)
    assert 8 * len(coded(static, DESCRIPTION)) <= 1.9 * len(DESCRIPTION)
    assert 5 * len(coded(static, DESCRIPTION)) < 2 * len(zlib.compress(DESCRIPTION.encode(), 9))


def test_other_scripts_cost_less_than_their_bytes() -> None:
    for text in (
        "一只棕色的狗在绿色的草地上奔跑。",
        "Коричневая собака бежит по траве.",
        "كلب بني يركض عبر العشب",
    ):
        assert len(coded(static, text)) < 0.9 * len(text.encode())


def test_a_text_teaches_its_own_words() -> None:
    once = "Zyxwvutz Qwrtpsd 93281. "
    assert len(coded(static, once * 4)) < 1.8 * len(coded(static, once))


def test_raw_takes_the_bytes_and_a_short_length() -> None:
    assert len(coded(raw, "")) <= 1
    assert len(coded(raw, "dog")) <= 4
    assert len(coded(raw, "é" * 1000)) <= 2000 + 3


def test_long_texts_are_quick() -> None:
    texts = [(DESCRIPTION * 40)[:10_000], "".join(chr(0x4E00 + 37 * i % 5000) for i in range(2_000))]
    for text in texts:
        start = time.process_time()
        assert static.read(WideRangeDecoder(coded(static, text))) == text
        assert time.process_time() - start < 4  # both ways; a quarter of a second on a quiet machine


@pytest.mark.parametrize("coder", CODERS)
def test_the_longest_text_round_trips_and_a_longer_one_is_refused(coder: ModuleType) -> None:
    longest = "The dog. " * (MAX_TEXT_BYTES // 9)
    longest += "." * (MAX_TEXT_BYTES - len(longest))
    assert coder.read(WideRangeDecoder(coded(coder, longest))) == longest
    with pytest.raises(UsageError, match="65537 bytes"):
        coded(coder, longest + "!")


@pytest.mark.parametrize("coder", CODERS)
def test_half_a_surrogate_pair_is_refused(coder: ModuleType) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        coded(coder, "dog \ud83d")


def test_a_length_over_the_limit_is_refused_before_any_byte_is_read() -> None:
    encoder = WideRangeEncoder()
    encoder.encode(255, 1, 256)  # 17 bits
    encoder.encode(1, 1, 1 << 16)
    with pytest.raises(CorruptBitstream, match="65537 bytes"):
        raw.read(WideRangeDecoder(encoder.finish()))


def test_tokens_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoder = static.static_model(), WideRangeEncoder()
    monkeypatch.setattr(static, "text_bytes", str.encode)  # no limit on the way in
    static.write_with(model, encoder, "the " * (MAX_TEXT_BYTES // 4 + 1))
    with pytest.raises(CorruptBitstream, match="limit of 65536"):
        static.read(WideRangeDecoder(encoder.finish()))


@pytest.mark.parametrize("coder", CODERS)
def test_bytes_that_are_no_utf8_are_refused(coder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coder, "text_bytes", lambda text: text.encode("latin-1"))
    data = coded(coder, "\xff\xfe")
    with pytest.raises(CorruptBitstream, match="UTF-8"):
        coder.read(WideRangeDecoder(data))


def test_bytes_stay_the_same_for_ever() -> None:
    assert coded(static, CAPTION).hex() == "439b"
    assert hashlib.sha256(coded(static, DESCRIPTION * 9)).hexdigest()[:16] == "4d1c8a8c0c26d4cd"
    assert (
        hashlib.sha256(b"|".join(coded(static, text) for text in AWKWARD)).hexdigest()[:16]
        == "8f4dfef145e7af38"
    )
    assert coded(raw, "dog").hex() == "1b237b38"


def test_the_manifest_describes_the_shipped_model() -> None:
    folder = resources.files("picogram.text")
    manifest = json.loads((folder / "static_model.json").read_text())
    file = (folder / manifest["file"]).read_bytes()
    assert len(file) == manifest["size"] <= 150_000
    assert hashlib.sha256(file).hexdigest() == manifest["sha256"] == static.MODEL_SHA256
    assert manifest["held_out"]["bits_per_character"] <= 2.2


def test_an_altered_model_is_refused() -> None:
    with pytest.raises(ModelDamaged, match="reinstall"):
        static.load(zlib.compress(b"another model"))


def test_the_coders_need_no_torch() -> None:
    code = "import sys, picogram.text.static as s; s.static_model(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("token", [0, 1, 500, -1])
def test_every_token_has_its_own_part_of_the_total(token: int) -> None:
    model = static.static_model()
    blend = static._Blend(model)
    for step in (token % model.size, 3, token % model.size, 3, token % model.size):
        edges = [static._below(model.base, blend.tables(), at) for at in range(model.size + 1)]
        assert edges[0] == 0
        assert edges[-1] == 2**32 + model.size
        assert all(below < above for below, above in pairwise(edges))
        blend.advance(step)


def test_segments_are_the_cheapest() -> None:
    costs = {b"a": 5, b"b": 5, b"c": 5, b"ab": 6, b"bc": 3, b"abc": 9}
    assert static.segment(b"abc", costs) == [b"a", b"bc"]
    assert static.segment(b"abab", costs) == [b"ab", b"ab"]
    assert static.segment(b"", costs) == []


def test_byte_pairs_are_merged_by_frequency_and_within_words() -> None:
    merged = train_static.merged_pairs(Counter({b"abab abc": 3, b"bc": 1}), 3)
    assert merged == [b"ab", b" ab", b" abc"]


def test_a_relearnt_model_codes_its_texts_and_is_the_same_each_time() -> None:
    recipe = StaticRecipe(merges=60, dense_weight=2, runs_of_three=50, runs_of_two=50)
    short = ["A dog runs .", "A dog sits .", "A cat runs on the grass .", "A cat sits on the dog ."] * 5

    def learnt() -> bytes:
        texts = train_static.weighted_texts(short, [DESCRIPTION], recipe)
        cut = train_static.tokenise(texts, train_static.merged_pairs(texts, recipe.merges))
        ones, twos, threes = train_static.learn(cut, texts, recipe)
        train_static.admit_other_scripts(ones, twos)
        return train_static.packed(ones, twos, threes)

    model = static.StaticModel(learnt())
    assert learnt() == learnt()
    known, unknown = (
        train_static.mean_bits(model, [text])[1] for text in ("A cat sits .", "Five old red cars")
    )
    assert known <= 16
    assert unknown > 4 * known
