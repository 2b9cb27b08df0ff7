# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Coding inside the engine: a logits processor that turns each row of logits into symbols of a range coder.

    logits of one request ── integer counts ──┬── WritingScript: the symbol of the token that must come next
                                              └── ReadingScript: the token whose interval the stream points into
    the chosen token ── forced upon vLLM's greedy sampler

The engine runs in this process, so streams are ordinary objects: a request names its *script* in ``extra_args``, and
``SCRIPTS`` maps names to scripts. vLLM may ask for the same step twice (a prompt that is split, a request that is
preempted and computed again); scripts therefore settle a step only when the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from picogram.errors import CorruptBitstream, PicogramError
from picogram.text.fixed import Symbol
from picogram.text.lm.distribution import cumulative, symbol, token_at
from picogram.text.token_rangecoder import WideRangeDecoder

Row = npt.NDArray[np.float64]
"""Integer logits ``[vocabulary]`` in units of 1/256 nat."""
KEY = "picogram"


class Script(Protocol):
    """What happens to one request, step by step."""

    def step(self, index: int, logits: Row) -> int:
        """The token of step ``index``; must not raise, and may be asked again for the latest step."""


SCRIPTS: dict[str, Script] = {}
"""Scripts of the requests under way in this process."""


class WritingScript:
    """Makes the engine say ``ids``, the last of which ends the text, and notes their symbols."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._symbols: dict[int, Symbol] = {}

    def step(self, index: int, logits: Row) -> int:
        token = self.ids[index]
        self._symbols[index] = symbol(cumulative(logits), token)
        return token

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """One symbol per token, the end included."""
        return tuple(self._symbols[i] for i in range(len(self.ids)))


class ReadingScript:
    """Follows a stream until ``end``; more than ``limit`` tokens before it are an error. Call ``finish`` afterwards."""

    def __init__(self, decoder: WideRangeDecoder, end: int, limit: int) -> None:
        self.ids: list[int] = []
        self.error: PicogramError | None = None
        self._decoder, self._end, self._limit = decoder, end, limit
        self._index = 0
        self._pending: tuple[int, Symbol] | None = None

    def step(self, index: int, logits: Row) -> int:
        if index > self._index:
            self._settle()
            self._index = index
        cumulated = cumulative(logits)
        try:
            token = token_at(cumulated, self._decoder.target(int(cumulated[-1])))
        except PicogramError as error:
            self._pending, self.error = None, error
            return self._end
        self._pending, self.error = (token, symbol(cumulated, token)), None
        return token if len(self.ids) < self._limit else self._end

    def _settle(self) -> None:
        if self._pending is not None:
            token, found = self._pending
            self._decoder.advance(*found)
            self.ids.append(token)
            self._pending = None

    def finish(self) -> None:
        """Step over the last symbol, so that the stream stands behind the text, and check that it was the end."""
        if self.error is not None:
            return
        self._settle()
        if self.ids and self.ids[-1] == self._end:
            self.ids.pop()
        else:
            self.error = CorruptBitstream("the coded words do not end")


def exact_row(logits: torch.Tensor) -> Row:
    """Logits that are integers already."""
    return logits.double().numpy()


def rounded_row(logits: torch.Tensor) -> Row:
    """Float logits on the grid of 1/256; what a model rules out (minus infinity) becomes merely very unlikely."""
    return torch.round(logits.double().clamp(min=-30000.0) * 256.0).numpy()


class CodingProcessor(AdapterLogitsProcessor):  # type: ignore[misc] # vLLM is seldom there to check against
    """The logits processor; requests without a script are left alone."""

    to_row: Callable[[torch.Tensor], Row] = staticmethod(exact_row)

    def is_argmax_invariant(self) -> bool:
        """It decides what comes next, so greedy sampling must call it too."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        """A function of the tokens so far and one row of logits."""
        name = (params.extra_args or {}).get(KEY)
        if name is None:
            return None
        script = SCRIPTS[name]
        to_row = type(self).to_row

        def force(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            token = script.step(len(output_ids), to_row(logits))
            logits.fill_(float("-inf"))
            logits[token] = 0.0
            return logits

        return force

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """ValueError if a request names a script that this process does not have."""
        name: Any = (sampling_params.extra_args or {}).get(KEY)
        if name is not None and name not in SCRIPTS:
            raise ValueError(f"no script {name!r} in this process")


class RoundingProcessor(CodingProcessor):
    """The same for models with float logits."""

    to_row = staticmethod(rounded_row)
