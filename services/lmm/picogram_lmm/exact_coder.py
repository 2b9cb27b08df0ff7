# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The coder ``exact-lm`` on vLLM: stands in for ``picogram.text.lm.lm_coder.LMCoder``, makes and reads the same bytes.

[virtual ids of the soft prompt | start token] ── Engine ── the tokens that follow

Writing is one pass over the engine's weights, outside its schedule.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from picogram.text.lm.exact_lm import MAX_POSITIONS, ExactLM, LMConfig
from picogram.text.lm.lm_coder import MAX_TOKENS, LMCoder
from picogram.text.lm.tokens import END_OF_TEXT, LMTokenizer
from picogram_lmm import coding_processor, exact_model
from picogram_lmm.vllm_engine import DEFAULT_ROWS, KV_CACHE_BYTES, Engine, Prompt


class VllmLMCoder(LMCoder):
    """``LMCoder`` whose forward passes are vLLM's: ``TextCoder(lm=VllmLMCoder(...))``."""

    def __init__(
        self,
        weights: Path,
        tokens: LMTokenizer,
        prompts: Mapping[str, Tensor],
        config: LMConfig | None = None,
        rows: int = DEFAULT_ROWS,
        cache_bytes: int = KV_CACHE_BYTES,
    ) -> None:
        """``weights``: the converted safetensors file; ``prompts``: as for ``LMCoder``; ``rows``: texts per step;
        ``cache_bytes``: for keys and values; if they run out, texts wait for each other.

        Raises ModelError if vLLM cannot load the model, ValueError if a prompt leaves the range of keys and values.
        """
        exact_model.register()
        with tempfile.TemporaryDirectory(prefix="picogram-lm-") as directory:
            self._first = exact_model.write_model_directory(Path(directory), weights, prompts, config)
            self.engine = Engine(
                directory,
                coding_processor.CodingProcessor,
                rows,
                skip_tokenizer_init=True,
                dtype="float32",
                max_model_len=exact_model.MAX_MODEL_LENGTH,
                max_num_batched_tokens=4 * MAX_POSITIONS,
                kv_cache_memory_bytes=cache_bytes,
            )
        model: ExactLM = self.engine.llm.apply_model(lambda m: m.loaded)[0]
        super().__init__(model, tokens, dict(prompts))

    def prompt(self, kind: str) -> Prompt:
        """What vLLM is given for a text: soft prompt, start token."""
        first, count = self._first[kind], self.prompts[kind].shape[2]
        return {"prompt_token_ids": [*range(first, first + count), END_OF_TEXT]}

    def read_rows(self, readings: list[Any], stop: Callable[[], bool]) -> None:
        scripts = [coding_processor.ReadingScript(r.decoder, r.mode.end, MAX_TOKENS) for r in readings]
        prompts = [self.prompt(r.mode.kind) for r in readings]
        ends, limits = [r.mode.end for r in readings], [MAX_TOKENS + 1] * len(readings)
        self.engine.run(prompts, scripts, ends, limits, stop)
        for reading, script in zip(readings, scripts, strict=True):
            script.finish()
            reading.ids, reading.error = script.ids, script.error
