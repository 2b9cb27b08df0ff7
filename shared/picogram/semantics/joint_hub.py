# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP (Radford et al., 2021) behind the interface of the joint space, where a model hub can be reached.

Needs transformers (extra ``decoder-hub``). Nothing imports this module but callers that want CLIP: it costs seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from picogram.errors import ModelMissing
from picogram.semantics.features import preprocess
from picogram.semantics.joint import MAP_SIDE

CLIP: Final = "openai/clip-vit-base-patch32"
REVISION: Final = "c237dc49a33fc61debc9276459120b7eac67e7ef"
"""The commit that holds the published weights as safetensors."""
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
_BATCH: Final = 16


class ClipSpace:
    """A ``Joint`` over a CLIP model with vision transformer.

    Pictures are squashed to the model's square, not cropped, so that maps cover all of a picture.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = CLIP) -> None:
        """``model``: a CLIPModel; ``tokenizer``: what belongs to it."""
        self.name, self.tokenizer = name, tokenizer
        self.model = model.eval().requires_grad_(False)
        self.side: int = model.config.vision_config.image_size
        self.cell: int = model.config.vision_config.patch_size

    @property
    def scale(self) -> float:
        """What similarities were multiplied with in training before the softmax."""
        return float(self.model.logit_scale.exp())

    @torch.no_grad()
    def image(self, pictures: Sequence[Image.Image]) -> Tensor:
        """``[B, D]`` of "RGB" pictures of any size, without gradients."""
        size = (self.side, self.side)
        parts = [pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)]
        found = [self.pixels(torch.stack([preprocess(p, size) for p in part])) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, self.model.config.projection_dim)

    def pixels(self, pixels: Tensor) -> Tensor:
        """``[B, D]`` of ``pixels [B, 3, H, W] float 0..1``; gradients flow to them."""
        pixels = self._normalised(pixels, self.side)
        return F.normalize(self.model.get_image_features(pixels).pooler_output, dim=-1)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """``[B, D]`` of captions, cut where the model's positions end; an empty one has a vector too."""
        found = [self._text(captions[i : i + _BATCH]) for i in range(0, len(captions), _BATCH)]
        return torch.cat(found) if found else torch.zeros(0, self.model.config.projection_dim)

    @torch.no_grad()
    def image_map(self, picture: Image.Image, side: int = MAP_SIDE) -> Tensor:
        """``[side, side, D]``: what is in each cell of an "RGB" picture that is squashed to a square.

        The last layer's values without its attention, which mixes the whole picture into every patch (Zhou et al.,
        "Extract Free Dense Labels from CLIP", 2022).
        """
        size = side * self.cell
        pixels = self._normalised(preprocess(picture, (size, size))[None], size)
        vision = self.model.vision_model
        seen = vision(pixels, output_hidden_states=True, interpolate_pos_encoding=size != self.side)
        last = vision.encoder.layers[-1]
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(seen.hidden_states[-2])))
        cells = self.model.visual_projection(vision.post_layernorm(values[0, 1:]))
        return F.normalize(cells, dim=-1).view(side, side, -1)

    def _text(self, captions: Sequence[str]) -> Tensor:
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(captions),
            padding=True,
            truncation=True,
            max_length=longest,
            split_special_tokens=True,  # "<|endoftext|>" is text like any other
            return_tensors="pt",
        )
        found = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(found.pooler_output, dim=-1)

    def _normalised(self, pixels: Tensor, side: int) -> Tensor:
        if pixels.shape[2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)
        mean, deviation = (pixels.new_tensor(v).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
        return (pixels - mean) / deviation


def load_clip(name: str = CLIP, revision: str = REVISION) -> ClipSpace:
    """CLIP from the hub or its cache, or from a folder, whatever the revision. Raises ModelMissing."""
    try:
        model = CLIPModel.from_pretrained(name, revision=revision, use_safetensors=True)
        return ClipSpace(model, AutoTokenizer.from_pretrained(name, revision=revision), name)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:160]
        raise ModelMissing(f"{name} could not be had from the hub or its cache: {why}") from error
