# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From the vocabulary and merges in a GGUF file to the JSON that the tokenizers library reads.

Written by hand rather than by the library, whose output changes between its versions, so that one SHA-256 proves it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def tokenizer_json(path: Path) -> bytes:
    """Byte-level BPE after splitting off every digit, with no special tokens: ``<|im_start|>`` in a text is plain text.

    Raises ValueError if the file holds no vocabulary of that kind.
    """
    import gguf

    reader = gguf.GGUFReader(str(path))
    kind, tokens, merges = (
        field.contents() if (field := reader.get_field(f"tokenizer.ggml.{key}")) else None
        for key in ("model", "tokens", "merges")
    )
    if kind != "gpt2" or not tokens or not merges:
        raise ValueError("the file holds no byte-level BPE vocabulary")
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [merge.split(" ") for merge in merges],
    }
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(prefix=False)],
        },
        "post_processor": None,
        "decoder": _byte_level(prefix=True),
        "model": model,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _byte_level(prefix: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
