# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""A vLLM engine in this process that runs requests by script: prompts and scripts go in, nothing comes out of it.

What a request does with its logits is its script's affair (``coding_processor``). Requests of several callers share the
engine's steps, up to ``rows`` at a time; whoever waits for his own drives the engine for all.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from picogram.errors import ModelError, UsageError

DEFAULT_ROWS = 16
KV_CACHE_BYTES = 256 << 20
"""About 5,800 positions of the exact model: 16 requests of 360."""

Prompt = Any
"""``{"prompt_token_ids": [...]}``, as vLLM takes it."""


def prepare_process() -> None:
    """Settings that vLLM reads from the environment when it starts; UsageError if a wish contradicts them."""
    if os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0") != "0":
        raise UsageError(
            "coding inside vLLM needs its engine in this process: VLLM_ENABLE_V1_MULTIPROCESSING=0"
        )
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


class Engine:
    """``LLM`` with scripts. ``finished`` requests are forgotten; an engine is not closed, it ends with the process."""

    def __init__(self, model: str, processor: type, rows: int = DEFAULT_ROWS, **options: Any) -> None:
        """``options`` go to ``vllm.LLM``. ModelError if vLLM cannot load the model."""
        prepare_process()
        from vllm import LLM

        settings: dict[str, Any] = {
            "max_num_seqs": rows,
            "enforce_eager": True,
            "kv_cache_memory_bytes": KV_CACHE_BYTES,
            "enable_prefix_caching": False,
            "async_scheduling": False,
            "disable_log_stats": True,
            "logits_processors": [processor],
        }
        try:
            self.llm = LLM(model=model, **(settings | options))
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"vLLM cannot load {model}: {str(error).splitlines()[0]}") from error
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._done: set[str] = set()

    def run(
        self,
        prompts: Sequence[Prompt],
        scripts: Sequence[Any],
        ends: Sequence[int],
        limits: Sequence[int],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run one request per prompt until its script says the token ``ends[i]``, at most ``limits[i]`` tokens.

        ``stop`` is asked between steps; once it says so, what is left is given up.
        """
        names = [self._add(*row) for row in zip(prompts, scripts, ends, limits, strict=True)]
        waiting = set(names)
        try:
            while waiting and not stop():
                with self._lock:
                    waiting -= self._done
                    if waiting:
                        self._step()
        finally:
            self._forget(names, waiting)

    def _add(self, prompt: Prompt, script: Any, end: int, limit: int) -> str:
        from vllm import SamplingParams

        from picogram_lmm.coding_processor import KEY, SCRIPTS

        name = f"picogram-{next(self._numbers)}"
        params = SamplingParams(
            temperature=0.0,
            max_tokens=limit,
            stop_token_ids=[end],
            ignore_eos=True,
            detokenize=False,
            extra_args={KEY: name},
        )
        SCRIPTS[name] = script
        with self._lock:
            self.llm.llm_engine.add_request(name, prompt, params)
        return name

    def _step(self) -> None:
        for output in self.llm.llm_engine.step():
            if output.finished:
                self._done.add(output.request_id)

    def _forget(self, names: list[str], waiting: set[str]) -> None:
        from picogram_lmm.coding_processor import SCRIPTS

        with self._lock:
            if waiting:
                self.llm.llm_engine.abort_request(list(waiting))
            for name in names:
                SCRIPTS.pop(name, None)
                self._done.discard(name)
