# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Attention that can be seen and changed, in the few layers where guidance acts; the others keep torch's fast kernels.

Those are the middle and the first level on the way up that has attention (Chen et al., WACV 2024): coarse enough to
place things. Every token takes part, padding too, as in training; a guide that changes nothing changes no picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from picogram.diffusion.denoiser import AttentionGuide


def guided_layers(unet: Any) -> list[Any]:
    """Cross-attention layers of the middle and of the first level up that has any."""
    blocks = [unet.mid_block, *[block for block in unet.up_blocks if hasattr(block, "attentions")][:1]]
    names = [(name, module) for block in blocks for name, module in block.named_modules()]
    return [module for name, module in names if name.endswith("attn2")]


@contextmanager
def guided(layers: Sequence[Any], guide: AttentionGuide | None, height: int, width: int) -> Iterator[None]:
    """Within, ``guide`` sees the logits of ``layers`` for a picture of ``height x width`` latent positions."""
    if guide is None:
        yield
        return
    before = [layer.processor for layer in layers]
    processor = GuidedProcessor(guide, height, width)
    try:
        for layer in layers:
            layer.set_processor(processor)
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.set_processor(own)


class GuidedProcessor:
    """An attention processor of diffusers that computes in steps, logits in float32 for ``guide`` to see and change."""

    def __init__(self, guide: AttentionGuide, height: int, width: int) -> None:
        self._guide, self._height, self._width = guide, height, width

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """``hidden_states [B, h*w, C]``, ``encoder_hidden_states [B, T, C']``; these models pass no masks."""
        query, key, value = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        logits = query.float() @ key.float().transpose(-1, -2) * attn.scale
        height, width = self._size(logits.shape[2])
        logits = self._guide(logits.unflatten(2, (height, width))).flatten(2, 3)
        mixed = (logits.softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor
        return out

    def _size(self, positions: int) -> tuple[int, int]:
        """Of a layer: halved until it has that many positions."""
        height, width = self._height, self._width
        while height * width > positions:
            height, width = height // 2, width // 2
        return height, width
