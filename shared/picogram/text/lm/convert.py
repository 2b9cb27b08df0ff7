# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""From the SmolLM2-135M GGUF file to the integers the exact model runs on.

Row by row: ``scale = max|w| / 127`` in float64, ``weight = round(w / scale)``. Every operation is a single IEEE one, so
every machine makes the same file, and its SHA-256 proves it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picogram.text.lm.exact_lm import MAX_POSITIONS, LMConfig
from picogram.text.lm.lm_tables import exp_table, rotary_tables, sigmoid_table

Array = npt.NDArray[np.float64]


def convert(path: Path, config: LMConfig | None = None) -> dict[str, Tensor]:
    """Weights, scales, gains and tables of a Llama GGUF file, as ``ExactLM`` takes them.

    ValueError if the file is not the model that ``config`` describes.
    """
    config = config or LMConfig()
    floats = _read(path)
    expected = 2 + 9 * config.layers
    if len(floats) != expected or floats["token_embd.weight"].shape != (config.vocabulary, config.width):
        raise ValueError("the file is not SmolLM2-135M")
    out: dict[str, Tensor] = {}
    _store(out, "embedding", floats["token_embd.weight"])
    for i in range(config.layers):
        block = {k.removeprefix(f"blk.{i}."): v for k, v in floats.items() if k.startswith(f"blk.{i}.")}
        q = _halves(block["attn_q.weight"], config.heads)
        k = _halves(block["attn_k.weight"], config.kv_heads)
        _store(out, f"{i}.qkv", np.concatenate([q, k, block["attn_v.weight"]]))
        _store(out, f"{i}.out", block["attn_output.weight"])
        _store(out, f"{i}.gate_up", np.concatenate([block["ffn_gate.weight"], block["ffn_up.weight"]]))
        _store(out, f"{i}.down", block["ffn_down.weight"])
        out[f"{i}.attention_gain"] = torch.from_numpy(block["attn_norm.weight"]).float()
        out[f"{i}.mlp_gain"] = torch.from_numpy(block["ffn_norm.weight"]).float()
    out["final_gain"] = torch.from_numpy(floats["output_norm.weight"]).float()
    return out | tables(config)


def tables(config: LMConfig) -> dict[str, Tensor]:
    """The integer tables of a model."""
    cos, sin = rotary_tables(MAX_POSITIONS, config.head_width // 2, config.rope_base)
    found = {"cos": cos, "sin": sin, "exp": exp_table(), "sigmoid": sigmoid_table()}
    return {name: torch.tensor(table, dtype=torch.int32) for name, table in found.items()}


def _read(path: Path) -> dict[str, Array]:
    import gguf

    reader = gguf.GGUFReader(str(path))
    return {
        tensor.name: np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float64)
        for tensor in reader.tensors
    }


def _halves(weight: Array, heads: int) -> Array:
    """Undo llama.cpp's pairing of neighbours: rows of each head ordered as two halves."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _store(out: dict[str, Tensor], name: str, weight: Array) -> None:
    scale = np.maximum(np.abs(weight).max(1), 2.0**-40) / 127.0
    out[name] = torch.from_numpy(np.rint(weight / scale[:, None]).astype(np.int8))
    out[f"{name}.scale"] = torch.from_numpy(scale)
