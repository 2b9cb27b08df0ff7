# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The exact model in vLLM gives the integers that plain torch gives, in any company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor

from picogram.text.lm.mode import Mode

pytest.importorskip("vllm")

from picogram_lmm.coding_processor import Row
from picogram_lmm.exact_model import VIRTUAL, write_model_directory

if TYPE_CHECKING:
    from picogram.text.lm.coder import LMCoder
    from picogram_lmm.engine import Prompt
    from picogram_lmm.exact_coder import VllmLMCoder

END = 198


class Recorder:
    """Makes the engine say given tokens and keeps the logits of every step."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.rows = [*ids, END], {}

    def step(self, index: int, logits: Row) -> int:
        self.rows[index] = logits.copy()
        return self.ids[index]

    @property
    def logits(self) -> np.ndarray:
        return np.stack([self.rows[i] for i in range(len(self.ids))])


def random_ids(seed: int, count: int) -> list[int]:
    ids = torch.randint(200, 500, (count,), generator=torch.Generator().manual_seed(seed))
    return ids.tolist()


def random_context(seed: int, count: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-90000, 90001, (count, tiny_lm.CONFIG.width), generator=g).double()


def in_vllm(coder: VllmLMCoder, prompts: list[Prompt], texts: list[list[int]]) -> list[np.ndarray]:
    scripts = [Recorder(ids) for ids in texts]
    coder.engine.run(prompts, scripts, [END] * len(texts), [len(ids) + 1 for ids in texts])
    return [script.logits for script in scripts]


def in_torch(coder: LMCoder, kind: str, context: Tensor | None, ids: list[int]) -> np.ndarray:
    """All logits of a text in one prefill."""
    cache = coder.start([Mode(kind)], [context], len(ids) + 1)
    hidden = coder.model.forward(coder.model.embed(torch.tensor([[0, *ids]])), cache)
    return coder.model.logits(hidden[0]).numpy()


@pytest.mark.parametrize("batch", [1, 8, 16, 19])
def test_logits_equal_those_of_torch_at_any_batch_size(
    vllm_coder: VllmLMCoder, torch_coder: LMCoder, batch: int
) -> None:
    texts = [random_ids(i, 3 + 5 * (i % 7)) for i in range(batch)]
    kinds = [("short", "dense", "plain")[i % 3] for i in range(batch)]
    contexts = [random_context(i, 4 + i) if i % 4 == 1 else None for i in range(batch)]
    prompts = [vllm_coder.prompt(k, c) for k, c in zip(kinds, contexts, strict=True)]
    found = in_vllm(vllm_coder, prompts, texts)
    for row, kind, context, ids in zip(found, kinds, contexts, texts, strict=True):
        assert np.array_equal(row, in_torch(torch_coder, kind, context, ids))


def test_a_text_in_the_prompt_gives_the_logits_that_stepping_gives(vllm_coder: VllmLMCoder) -> None:
    ids = random_ids(5, 150)  # more than a page of the cache
    start = vllm_coder.prompt("short")["prompt_token_ids"]
    stepped = in_vllm(vllm_coder, [{"prompt_token_ids": start}], [ids])[0]
    for cut in (1, 40, 149):
        prefilled = in_vllm(vllm_coder, [{"prompt_token_ids": start + ids[:cut]}], [ids[cut:]])[0]
        assert np.array_equal(prefilled, stepped[cut:])


def test_embeddings_of_tokens_give_what_the_tokens_give(vllm_coder: VllmLMCoder) -> None:
    ids = random_ids(6, 9)
    spelled = {"prompt_embeds": vllm_coder.model.embed(torch.tensor([0, *ids])).float()}
    found = in_vllm(vllm_coder, [spelled, {"prompt_token_ids": [0, *ids]}], [ids, ids])
    assert np.array_equal(found[0], found[1])


def test_virtual_tokens_in_embeddings_give_what_virtual_ids_give(vllm_coder: VllmLMCoder) -> None:
    empty = torch.zeros(0, tiny_lm.CONFIG.width, dtype=torch.float64)
    ids = random_ids(7, 6)
    found = in_vllm(vllm_coder, [vllm_coder.prompt("dense"), vllm_coder.prompt("dense", empty)], [ids, ids])
    assert np.array_equal(found[0], found[1])


def test_other_prompts_and_contexts_give_other_logits(vllm_coder: VllmLMCoder) -> None:
    ids, context = random_ids(8, 5), random_context(8, 6)
    nudged = context.clone()
    nudged[2, 100] += 3000
    marked = vllm_coder.prompt("short", context)["prompt_embeds"].clone()
    assert (marked[:7, 0] == VIRTUAL).all()
    marked[0, 1] = marked[1, 1]
    prompts = [
        vllm_coder.prompt("short", context),
        vllm_coder.prompt("short", nudged),
        vllm_coder.prompt("dense", context),
        {"prompt_embeds": marked},
        vllm_coder.prompt("short"),
    ]
    found = in_vllm(vllm_coder, prompts, [ids] * len(prompts))
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert not np.array_equal(one[0], other[0])


def test_a_context_that_float32_cannot_hold_is_refused(vllm_coder: VllmLMCoder) -> None:
    for wrong in (random_context(1, 2) + 0.5, random_context(1, 2) + 2.0**25):
        with pytest.raises(ValueError, match="integers"):
            vllm_coder.prompt("short", wrong)


def test_a_prompt_outside_the_range_of_keys_is_refused(tmp_path) -> None:
    table = tiny_lm.random_prompt(2, 0)
    table[0, 0, 0, 0] = 1 << 18
    with pytest.raises(ValueError, match="range"):
        write_model_directory(tmp_path, tmp_path / "lm.safetensors", {"short": table}, tiny_lm.CONFIG)
    with pytest.raises(ValueError, match="shape"):
        write_model_directory(tmp_path, tmp_path / "lm.safetensors", {"short": table[1:]}, tiny_lm.CONFIG)
