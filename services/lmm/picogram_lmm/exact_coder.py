# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The coder ``exact-lm`` on vLLM: stands in for ``picogram.text.lm.coder.LMCoder``, makes and reads the same bytes.

[virtual ids of the soft prompt | context rows | start token] ── Engine ── symbols of the tokens that follow
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picogram.text.fixed import Symbol
from picogram.text.lm.coder import MAX_TOKENS, LMCoder
from picogram.text.lm.mode import Mode
from picogram.text.lm.model import MAX_POSITIONS, ExactLM, LMConfig
from picogram.text.lm.tokens import END_OF_TEXT, Tokens
from picogram_lmm import coding_processor, exact_model
from picogram_lmm.engine import DEFAULT_ROWS, KV_CACHE_BYTES, Engine, Prompt


class VllmLMCoder(LMCoder):
    """``LMCoder`` whose forward passes are vLLM's: ``TextCoder(lm=VllmLMCoder(...))``."""

    def __init__(
        self,
        weights: Path,
        tokens: Tokens,
        prompts: Mapping[str, Tensor],
        config: LMConfig | None = None,
        rows: int = DEFAULT_ROWS,
        cache_bytes: int = KV_CACHE_BYTES,
        write_in_engine: bool = False,
    ) -> None:
        """``weights``: the converted safetensors file; ``prompts``: as for ``LMCoder``; ``rows``: texts per step;
        ``cache_bytes``: for keys and values; if they run out, texts wait for each other.

        ``write_in_engine``: write texts token by token among the engine's other requests. Otherwise one pass over the
        engine's weights, outside its schedule, does it: the same bytes in less time. Raises ModelError if vLLM cannot
        load the model, ValueError if a prompt leaves the range of keys and values.
        """
        self.write_in_engine = write_in_engine
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
                enable_prompt_embeds=True,
                kv_cache_memory_bytes=cache_bytes,
            )
        model: ExactLM = self.engine.llm.apply_model(lambda m: m.loaded)[0]
        super().__init__(model, tokens, dict(prompts))

    def prompt(self, name: str, context: Tensor | None = None) -> Prompt:
        """What vLLM is given for a text: soft prompt, context ``[n, width]`` of integers, start token.

        ValueError if the context is not of integers within +-2**24: those are exact in float32.
        """
        first, count = self._first[name], self.prompts[name].shape[2]
        if context is None:
            return {"prompt_token_ids": [*range(first, first + count), END_OF_TEXT]}
        limit = exact_model.EMBEDDING_LIMIT
        if not torch.equal(context, context.round()) or bool((context.abs() > limit).any()):
            raise ValueError("a context is of integers within +-2**24")
        config = self.model.config
        virtual = exact_model.virtual_rows(first, count, config.vocabulary, config.width)
        start = self.model.embed(torch.tensor([END_OF_TEXT]))
        return {"prompt_embeds": torch.cat((virtual, context.float(), start.float()))}

    def write_rows(
        self, modes: list[Mode], ids_of: list[list[int]], contexts: list[Tensor | None]
    ) -> Iterable[tuple[Symbol, ...]]:
        if not self.write_in_engine:
            return super().write_rows(modes, ids_of, contexts)
        scripts = [coding_processor.Writing(ids) for ids in ids_of]
        prompts = [self.prompt(m.prompt, c) for m, c in zip(modes, contexts, strict=True)]
        for prompt, ids in zip(prompts, ids_of, strict=True):
            if (needed := _length(prompt) - 1 + len(ids)) > MAX_POSITIONS:
                raise ValueError(f"a row needs {needed} positions, the model has {MAX_POSITIONS}")
        self.engine.run(prompts, scripts, [m.end for m in modes], [len(ids) for ids in ids_of])
        return [script.symbols for script in scripts]

    def read_rows(self, readings: list[Any], contexts: list[Tensor | None], stop: Callable[[], bool]) -> None:
        scripts = [coding_processor.Reading(r.decoder, r.mode.end, MAX_TOKENS) for r in readings]
        prompts = [self.prompt(r.mode.prompt, c) for r, c in zip(readings, contexts, strict=True)]
        ends, limits = [r.mode.end for r in readings], [MAX_TOKENS + 1] * len(readings)
        self.engine.run(prompts, scripts, ends, limits, stop)
        for reading, script in zip(readings, scripts, strict=True):
            script.finish()
            reading.ids, reading.error = script.ids, script.error


def _length(prompt: Prompt) -> int:
    return len(prompt["prompt_token_ids"] if "prompt_token_ids" in prompt else prompt["prompt_embeds"])
