# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts of any length and origin as what the networks read. They are plain text: nothing in them is a command.

text ── without control characters, cut ── tokens [B, 77] ── one or two encoders ── hidden [B, 77, C], whole [B, P]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from picogram_decoder.hub.parts import Parts

LONGEST: Final = 8192
"""Characters that tokenizers see: more than 77 of the longest tokens make."""


@dataclass(frozen=True)
class HubTexts:
    """``hidden [B, T, C]``; ``words [B, T]``: tokens of the prompt itself; ``whole [B, P]``: for models that ask."""

    hidden: Tensor
    words: Tensor
    whole: Tensor | None = None


@torch.no_grad()
def read_prompts(parts: Parts, prompts: Sequence[str]) -> HubTexts:
    """One row a prompt; what does not fit the tokenizer's length is cut off."""
    cleaned = [clean(prompt) for prompt in prompts]
    pairs = list(zip(parts.tokenizers, parts.text_encoders, strict=True))
    device = parts.unet.device
    tokens = [_tokens(tokenizer, cleaned) for tokenizer, _ in pairs]
    words = _words(tokens[0]["attention_mask"]).to(device)
    if len(pairs) == 1:
        hidden = pairs[0][1](tokens[0]["input_ids"].to(device)).last_hidden_state
        return HubTexts(hidden, words)
    read = [
        encoder(ids["input_ids"].to(device), output_hidden_states=True)
        for (_, encoder), ids in zip(pairs, tokens, strict=True)
    ]
    # the last layer but one, as these models were trained
    hidden = torch.cat([out.hidden_states[-2] for out in read], -1)
    return HubTexts(hidden, words, read[-1].text_embeds)


def clean(prompt: str) -> str:
    """Without control characters and halves of surrogate pairs, runs of white space as one, cut at LONGEST."""
    prompt = " ".join(prompt.split())
    kept = (c for c in prompt[: 2 * LONGEST] if unicodedata.category(c) not in ("Cc", "Cs"))
    return "".join(kept)[:LONGEST]


def _tokens(tokenizer: Any, prompts: list[str]) -> Any:
    return tokenizer(
        prompts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        split_special_tokens=True,  # "<|endoftext|>" is text like any other
        return_attention_mask=True,
        return_tensors="pt",
    )


def _words(mask: Tensor) -> Tensor:
    """``mask [B, T]`` of tokens that are not padding, without their first (start) and last (end)."""
    words = mask.bool().clone()
    words[:, 0] = False
    words[torch.arange(len(mask)), mask.sum(1) - 1] = False
    return words
