# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Masks: lossless at every size, cheap where smooth, never much over plain bits, and as documented."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogram.errors import CorruptBitstream, ModelDamaged, UsageError
from picogram.semantics import masks
from picogram.semantics.description import MASK_SIDES
from picogram.semantics.masks import CONTEXTS, LEVELS, Mask, contexts, read_mask, write_mask
from picogram.text.token_rangecoder import WideRangeDecoder, WideRangeEncoder
from training.words.train_masks import drawn_mask, start_counts

sides = st.sampled_from(MASK_SIDES)


def coded(*given: Mask) -> bytes:
    encoder = WideRangeEncoder()
    for mask in given:
        write_mask(encoder, mask)
    return encoder.finish()


def ellipse(side: int, x: float, y: float, width: float, height: float) -> Mask:
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    inside: Mask = ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2 < 1
    return inside


@st.composite
def any_mask(draw: st.DrawFn) -> Mask:
    """Noise of any density, with an ellipse in it or not."""
    side, seed = draw(sides), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    mask = rng.random((side, side)) < draw(st.sampled_from([0, 0.01, 0.5, 0.9, 1]))
    if draw(st.booleans()):
        mask ^= ellipse(side, *rng.random(4))
    return mask


@settings(max_examples=50, deadline=None)
@given(st.lists(any_mask(), max_size=4))
def test_any_masks_round_trip_one_after_another(some: list[Mask]) -> None:
    decoder = WideRangeDecoder(coded(*some))
    for mask in some:
        found = read_mask(decoder, len(mask))
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, mask)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_every_small_pattern_round_trips(bits: int) -> None:
    mask = np.array([bits >> place & 1 for place in range(64)], dtype=bool).reshape(8, 8)
    np.testing.assert_array_equal(read_mask(WideRangeDecoder(coded(mask)), 8), mask)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), sides)
def test_noise_takes_five_bits_over_plain_ones(seed: int, side: int) -> None:
    mask = np.random.default_rng(seed).random((side, side)) < 0.5
    assert 8 * len(coded(mask)) <= mask.size + 5 + 8


def test_smooth_masks_are_cheap() -> None:
    assert 8 * len(coded(ellipse(16, 0.5, 0.5, 0.3, 0.4))) <= 80
    assert 8 * len(coded(ellipse(16, 0.2, 0.7, 0.3, 0.2), ellipse(16, 0.8, 0.3, 0.1, 0.3))) <= 2 * 110
    three = [ellipse(8, 0.3, 0.3, 0.3, 0.2), ellipse(8, 0.7, 0.5, 0.2, 0.4), ellipse(8, 0.5, 0.9, 0.6, 0.3)]
    assert 8 * len(coded(*three)) <= 112  # plain: 192
    assert 8 * len(coded(ellipse(64, 0.4, 0.5, 0.3, 0.35))) <= 256
    assert all(len(coded(np.zeros((side, side), dtype=bool))) <= 2 for side in MASK_SIDES)


def test_many_drawn_masks_keep_their_promises() -> None:
    rng = np.random.default_rng(77)
    fine = [drawn_mask(rng, 16) for _ in range(150)]
    assert np.mean([8 * len(coded(mask)) for mask in fine]) <= 70  # promised: 110
    threes = [8 * len(coded(*(drawn_mask(rng, 8) for _ in range(3)))) for _ in range(100)]
    assert np.mean(threes) <= 112
    assert max(threes) < 192  # as plain bits


@pytest.mark.parametrize("side", MASK_SIDES)
def test_the_coding_is_as_documented(side: int) -> None:
    mask = ellipse(side, 0.4, 0.6, 0.3, 0.35)
    file = (resources.files("picogram.semantics") / "mask_counts.bin").read_bytes()
    part = file[MASK_SIDES.index(side) * 1024 :][:1024]
    zeros, ones = (
        [LEVELS[level] for level in levels] for levels in zip(*(divmod(b, 16) for b in part), strict=True)
    )
    encoder = WideRangeEncoder()
    encoder.encode(0, 31, 32)
    for context, pixel in zip(contexts(mask).ravel().tolist(), mask.ravel().tolist(), strict=True):
        total = zeros[context] + ones[context]
        encoder.encode(*((zeros[context], ones[context]) if pixel else (0, zeros[context])), total)
        (ones if pixel else zeros)[context] += 1
    assert encoder.finish() == coded(mask)


def test_context_numbers() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[3, 4] = True
    numbers = contexts(mask)
    order = [(3, 5), (4, 5), (4, 4), (4, 3), (3, 6), (5, 4), (4, 2), (4, 6), (5, 3), (5, 5)]
    assert [int(numbers[place]) for place in order] == [1 << bit for bit in range(10)]
    assert np.count_nonzero(numbers) == 10


def test_bytes_stay_the_same_for_ever() -> None:
    some = [ellipse(side, 0.45, 0.55, 0.3, 0.4) for side in MASK_SIDES]
    assert hashlib.sha256(coded(*some)).hexdigest()[:16] == "d2ed1c5c04bc2ca7"


@settings(deadline=None)
@given(st.binary(max_size=700), sides)
def test_any_bytes_give_a_mask_or_a_named_error(data: bytes, side: int) -> None:
    with suppress(CorruptBitstream):
        assert read_mask(WideRangeDecoder(data), side).shape == (side, side)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((8, 16), bool),
        np.zeros((9, 9), bool),
        np.zeros((8, 8)),
        np.zeros((8, 8, 1), bool),
        np.zeros(8, bool),
    ],
)
def test_other_shapes_and_types_are_refused(mask: Mask) -> None:
    with pytest.raises(UsageError, match="side"):
        write_mask(WideRangeEncoder(), mask)


def test_other_sides_are_not_read() -> None:
    with pytest.raises(ValueError, match="side 12"):
        read_mask(WideRangeDecoder(b""), 12)


def test_an_altered_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "COUNTS_SHA256", "0" * 64)
    masks._counts_file.cache_clear()
    with pytest.raises(ModelDamaged, match="reinstall"):
        coded(ellipse(8, 0.5, 0.5, 0.3, 0.3))


def test_learning_counts_follows_the_masks() -> None:
    half = np.zeros((16, 16), dtype=bool)
    half[:, 8:] = True
    learnt = start_counts([half] * 50)
    assert len(learnt) == CONTEXTS
    zeros, ones = divmod(learnt[0], 16)  # nothing set around: mostly zero
    assert LEVELS[zeros] > 4 * LEVELS[ones]
    zeros, ones = divmod(learnt[CONTEXTS - 1], 16)  # everything set around: always one here
    assert LEVELS[ones] > 4 * LEVELS[zeros]
