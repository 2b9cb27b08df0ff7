# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models with random weights in the format of transformers: a Llama, and an Idefics3 (the kind of SmolVLM)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_lm
import torch
from tokenizers import Tokenizer
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

IMAGE_SIDE, PATCH = 128, 16
IMAGE_TOKENS = (IMAGE_SIDE // PATCH // 2) ** 2
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_llama(folder: Path) -> Path:
    """A byte-level Llama, 64 wide."""
    torch.manual_seed(0)
    _tokenizer(folder).save_pretrained(folder)
    LlamaForCausalLM(LlamaConfig(**_text_sizes(tiny_lm.CONFIG.vocabulary))).save_pretrained(folder)
    return folder


def write_idefics3(folder: Path) -> Path:
    """A byte-level Idefics3 with a vision tower of 128 x 128 pixels and 16 image tokens."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder)
    special = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    tokens: dict[str, Any] = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": 0,
    }
    config = Idefics3Config(
        text_config={"model_type": "llama", **_text_sizes(len(tokenizer)), "tie_word_embeddings": False},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIDE,
            "patch_size": PATCH,
        },
        scale_factor=2,
        tie_word_embeddings=False,
        **tokens,
    )
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():  # fresh weights are so small that a model repeats its last token, whatever it sees
        for weight in (*model.model.text_model.layers.parameters(), *model.model.connector.parameters()):
            if weight.ndim == 2:
                weight.mul_(20)
    model.save_pretrained(folder)
    processing = {
        "image_processor_type": "Idefics3ImageProcessor",
        "processor_class": "Idefics3Processor",
        "size": {"longest_edge": IMAGE_SIDE},
        "max_image_size": {"longest_edge": IMAGE_SIDE},
        "do_image_splitting": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))
    sizes = {"processor_class": "Idefics3Processor", "image_seq_len": IMAGE_TOKENS}
    (folder / "processor_config.json").write_text(json.dumps(sizes))
    return folder


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    plain = Tokenizer.from_file(str(tiny_lm.write_tokenizer(folder / "bytes.json")))
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|0|>", pad_token="<|0|>")


def _text_sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "tie_word_embeddings": True,
    }
