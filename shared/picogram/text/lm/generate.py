# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Beam search over the language model, for several pictures at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from picogram.text.lm.distribution import GRID_BITS
from picogram.text.lm.exact_lm import Cache, ExactLM
from picogram.text.lm.tokens import END_OF_LINE, END_OF_TEXT


@dataclass(frozen=True)
class BeamSearch:
    """``beams`` hypotheses each, at most ``longest`` tokens; scores are divided by ``length ** penalty`` (Wu et al.,
    2016, without the offset). A bigram never occurs twice, which is how small models loop."""

    beams: int = 5
    longest: int = 28
    penalty: float = 0.7


@dataclass
class _Beam:
    ids: list[int]
    score: float
    done: bool = False

    def rank(self, penalty: float) -> float:
        return self.score / float(max(1, len(self.ids)) ** penalty)


@torch.inference_mode()
def beam_search(
    model: ExactLM,
    cache: Cache,
    vocabulary: Tensor,
    search: BeamSearch,
    starts: Sequence[Sequence[int]],
) -> list[list[int]]:
    """Tokens after the start token for each row of ``cache``, without the end token.

    ``vocabulary [V] int64``: ids that may occur, END_OF_LINE among them. ``starts``: tokens each text must begin with,
    all of the same number.
    """
    first = torch.tensor([[END_OF_TEXT, *start] for start in starts])
    hidden = model.forward(model.embed(first), cache)[:, -1]
    groups = [[_Beam(list(start), 0.0)] for start in starts]
    rows = [[index] for index in range(len(starts))]
    for _ in range(search.longest - len(starts[0])):
        scores = _log_probabilities(model, hidden, vocabulary)
        sources: list[int] = []
        for index, beams in enumerate(groups):
            groups[index], chosen = _extend(beams, rows[index], scores, vocabulary, search)
            alive = [row for beam, row in zip(groups[index], chosen, strict=True) if not beam.done]
            rows[index] = list(range(len(sources), len(sources) + len(alive)))
            sources += alive
        if not sources:
            break
        cache.keep(torch.tensor(sources))
        last = [beam.ids[-1] for beams in groups for beam in beams if not beam.done]
        hidden = model.forward(model.embed(torch.tensor(last)[:, None]), cache)[:, 0]
    return [max(beams, key=lambda b: (b.done, b.rank(search.penalty))).ids for beams in groups]


def _log_probabilities(model: ExactLM, hidden: Tensor, vocabulary: Tensor) -> Tensor:
    logits = model.logits(hidden)[:, vocabulary] / float(1 << GRID_BITS)
    return logits.log_softmax(1)


def _extend(
    beams: list[_Beam],
    rows: list[int],
    scores: Tensor,
    vocabulary: Tensor,
    search: BeamSearch,
) -> tuple[list[_Beam], list[int]]:
    """The best hypotheses one token on, finished ones kept, and for each the row it grew from (-1: finished)."""
    options: list[tuple[_Beam, int]] = [(beam, -1) for beam in beams if beam.done]
    alive = [beam for beam in beams if not beam.done]
    for beam, row in zip(alive, rows, strict=True):
        best = scores[row].topk(2 * search.beams)
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            token = int(vocabulary[place])
            if token == END_OF_LINE:
                options.append((_Beam(beam.ids, beam.score + score, True), -1))
            elif not _repeats(beam.ids, token):
                options.append((_Beam([*beam.ids, token], beam.score + score), row))
    options.sort(key=lambda option: option[0].rank(search.penalty), reverse=True)
    kept = options[: search.beams]
    return [beam for beam, _ in kept], [row for _, row in kept]


def _repeats(ids: list[int], token: int) -> bool:
    """Whether the token would make a pair that has occurred."""
    return bool(ids) and (ids[-1], token) in set(pairwise(ids))
