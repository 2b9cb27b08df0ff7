# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The exact model in vLLM gives the integers that plain torch gives, in any company."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_lm
import torch

from picogram.text.lm.mode import Mode

pytest.importorskip("vllm")

from picogram_lmm.coding_processor import Row
from picogram_lmm.exact_model import write_model_directory

if TYPE_CHECKING:
    from picogram.text.lm.lm_coder import LMCoder
    from picogram_lmm.exact_coder import VllmLMCoder
    from picogram_lmm.vllm_engine import Prompt

END = 198


class Recorder:
    """Makes the engine say given tokens and keeps the logits of every step."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = [*ids, END]
        self.rows: dict[int, Row] = {}

    def step(self, index: int, logits: Row) -> int:
        self.rows[index] = logits.copy()
        return self.ids[index]

    @property
    def logits(self) -> np.ndarray:
        return np.stack([self.rows[i] for i in range(len(self.ids))])


def random_ids(seed: int, count: int) -> list[int]:
    ids = torch.randint(200, 500, (count,), generator=torch.Generator().manual_seed(seed))
    return ids.tolist()


def in_vllm(coder: VllmLMCoder, prompts: list[Prompt], texts: list[list[int]]) -> list[np.ndarray]:
    scripts = [Recorder(ids) for ids in texts]
    coder.engine.run(prompts, scripts, [END] * len(texts), [len(ids) + 1 for ids in texts])
    return [script.logits for script in scripts]


def in_torch(coder: LMCoder, kind: str, ids: list[int]) -> np.ndarray:
    """All logits of a text in one prefill."""
    cache = coder.start([Mode(kind)], len(ids) + 1)
    hidden = coder.model.forward(coder.model.embed(torch.tensor([[0, *ids]])), cache)
    return coder.model.logits(hidden[0]).numpy()


@pytest.mark.parametrize("batch", [1, 8, 16, 19])
def test_logits_equal_those_of_torch_at_any_batch_size(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder, batch: int
) -> None:
    texts = [random_ids(i, 3 + 5 * (i % 7)) for i in range(batch)]
    kinds = [("short", "dense", "plain")[i % 3] for i in range(batch)]
    found = in_vllm(vllm_coder, [vllm_coder.prompt(kind) for kind in kinds], texts)
    for row, kind, ids in zip(found, kinds, texts, strict=True):
        assert np.array_equal(row, in_torch(torch_coder, kind, ids))


def test_a_text_in_the_prompt_gives_the_logits_that_stepping_gives(vllm_coder: VllmLMCoder) -> None:
    ids = random_ids(5, 150)  # more than a page of the cache
    start = vllm_coder.prompt("short")["prompt_token_ids"]
    stepped = in_vllm(vllm_coder, [{"prompt_token_ids": start}], [ids])[0]
    for cut in (1, 40, 149):
        prefilled = in_vllm(vllm_coder, [{"prompt_token_ids": start + ids[:cut]}], [ids[cut:]])[0]
        assert np.array_equal(prefilled, stepped[cut:])


def test_other_prompts_give_other_logits(vllm_coder: VllmLMCoder) -> None:
    ids, short = random_ids(8, 5), vllm_coder.prompt("short")["prompt_token_ids"]
    swapped = {"prompt_token_ids": [short[1], *short[1:]]}
    prompts = [*(vllm_coder.prompt(kind) for kind in ("short", "dense", "plain")), swapped]
    found = in_vllm(vllm_coder, prompts, [ids] * len(prompts))
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert not np.array_equal(one[0], other[0])


def test_a_prompt_outside_the_range_of_keys_is_refused(tmp_path: Path) -> None:
    table = tiny_lm.random_prompt(2, 0)
    table[0, 0, 0, 0] = 1 << 18
    with pytest.raises(ValueError, match="range"):
        write_model_directory(tmp_path, tmp_path / "lm.safetensors", {"short": table}, tiny_lm.CONFIG)
    with pytest.raises(ValueError, match="shape"):
        write_model_directory(tmp_path, tmp_path / "lm.safetensors", {"short": table[1:]}, tiny_lm.CONFIG)
