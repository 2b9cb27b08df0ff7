# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and sentences as unit vectors of one space, where what belongs together lies close.

    picture ── FeatureNet ──┬─ pooled ── whole ─┬─ sum ── unit ──────────> image      [B, 256]
                            └─ 3 x 3 windows ───┴─ unit, each ───────────> image_map  [h, w, 256]
    caption ── first layers of the language model ── tokens, weighted ── unit ──> text  [B, 256]

Both networks are frozen and shared with the captioner; only the heads are trained, on pairs that have to find each other
in a batch (Radford et al., CLIP, 2021). Floating point, for encoding and measuring only: nothing here ever decides what a
file decodes to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from picogram.errors import ModelDamaged
from picogram.latent.codec import unpack_floats
from picogram.models import shipped_manifest, shipped_weights
from picogram.semantics.features import CHANNELS, SIDE, Features, load_features, preprocess
from picogram.text.lm.exact_lm import Cache, ExactLM, rms_norm
from picogram.text.lm.loading_lm import load_exact_lm, load_tokenizer
from picogram.text.lm.tokens import END_OF_LINE, END_OF_TEXT, LMTokenizer

JOINT: Final = 1
"""Id of the shipped heads."""
MAX_WORDS: Final = 64
"""Tokens of a caption that are used; the rest is cut."""
_CELL: Final = 32
WINDOWS: Final = 3
"""Windows along a side, each of 3 x 3 cells, that a picture's vector is made of."""
MAP_SIDE: Final = SIDE // _CELL
"""Cells along a side of the pictures in training."""
_BATCH: Final = 16


def similarity(images: Tensor, texts: Tensor) -> Tensor:
    """Cosines ``[..., N]`` of any vectors ``[..., D]``, such as those of a map, with texts ``[N, D]``."""
    return images @ texts.T


@dataclass(frozen=True)
class JointConfig:
    """``layers``: how many layers of the language model captions go through."""

    layers: int = 12
    image_width: int = CHANNELS
    text_width: int = 576
    image_hidden: int = 512
    text_hidden: int = 512
    width: int = 256


class JointHeads(nn.Module):
    """The trained part: from frozen features to the common space; 1.35 million parameters with the default sizes."""

    def __init__(self, config: JointConfig | None = None, dropout: float = 0.0) -> None:
        """``dropout``: share of channels of inputs and hidden layers that training leaves out."""
        super().__init__()
        self.config = c = config or JointConfig()
        self.dropout = dropout
        self.image_norm = nn.LayerNorm(c.image_width)
        self.image_enter = nn.Linear(c.image_width, c.image_hidden)
        self.whole = nn.Linear(c.image_hidden, c.width)
        self.cell = nn.Linear(c.image_hidden, c.width)
        self.register_buffer("text_offset", torch.zeros(c.text_width))
        self.register_buffer("text_factor", torch.ones(c.text_width))
        self.text_norm = nn.LayerNorm(c.text_width)
        self.text_enter = nn.Linear(c.text_width, c.text_hidden)
        self.weigh = nn.Linear(c.text_hidden, 1)
        self.sentence = nn.Linear(c.text_hidden, c.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    text_offset: Tensor
    text_factor: Tensor

    def calibrate(self, states: Tensor) -> None:
        """Bring the channels of ``states [N, W]`` to one size: in a language model a few outweigh all others."""
        # half precision is what they are stored in
        self.text_offset.copy_(states.mean(0).half())
        self.text_factor.copy_(states.std(0).clamp_min(1e-3).reciprocal().half())

    def image(self, pooled: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """``pooled [B, C]`` and ``cells [B, n, C]`` to unit vectors ``[B, D]`` and ``[B, n, D]``."""
        whole = self.whole(self._hidden(self.image_norm(pooled), self.image_enter))
        parts = self.cell(self._hidden(self.image_norm(cells), self.image_enter))
        return F.normalize(whole + parts.mean(1), dim=-1), F.normalize(parts, dim=-1)

    def text(self, states: Tensor, mask: Tensor) -> Tensor:
        """``states [B, T, W]`` of tokens, ``mask [B, T]`` True for at least one of a row, to unit vectors ``[B, D]``."""
        states = self.text_norm((states - self.text_offset) * self.text_factor)
        hidden = self._hidden(states, self.text_enter)
        weights = self.weigh(hidden)[..., 0].masked_fill(~mask, -torch.inf).softmax(1)
        return F.normalize(self.sentence((weights[..., None] * hidden).sum(1)), dim=-1)

    def _hidden(self, x: Tensor, enter: nn.Linear) -> Tensor:
        return self._drop(F.gelu(enter(self._drop(x))))

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout that takes the same channels from all cells or tokens of a row."""
        if not (self.training and self.dropout):
            return x
        shape = (len(x), *[1] * (x.dim() - 2), x.shape[-1])
        return x * F.dropout(x.new_ones(shape), self.dropout)


class JointSpace:
    """How well words fit a picture. Vectors are float32 of length 1; their products are -1..1."""

    def __init__(
        self,
        net: Callable[[Tensor], Features],
        model: ExactLM,
        tokens: LMTokenizer,
        heads: JointHeads,
        name: str = f"joint-{JOINT}",
    ) -> None:
        """``net``: a FeatureNet; ``model``: all of the language model, of which the heads' config takes a part."""
        self.name, self.net, self.tokens = name, net, tokens
        self.heads = heads.eval().requires_grad_(False)
        self.model = first_layers(model, heads.config.layers)

    @torch.no_grad()
    def image(self, pictures: Sequence[Image.Image]) -> Tensor:
        """``[B, D]`` of "RGB" pictures of any size, without gradients."""
        parts = [pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)]
        found = [self.pixels(torch.stack([preprocess(p) for p in part])) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, self.heads.config.width)

    def pixels(self, pixels: Tensor) -> Tensor:
        """``[B, D]`` of ``pixels [B, 3, H, W] float 0..1``; gradients flow to them.

        Squashed to the side that the heads were trained with.
        """
        return vectors_of(self.net, self.heads, pixels)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """``[B, D]`` of captions, without gradients; an empty one has a vector too."""
        rows = [caption_ids(self.tokens, caption) for caption in captions]
        found = torch.zeros(len(rows), self.heads.config.width)
        for part in by_length(rows, _BATCH):
            found[torch.tensor(part)] = self.heads.text(*self._states([rows[i] for i in part]))
        return found

    @torch.no_grad()
    def image_map(self, picture: Image.Image, side: int = MAP_SIDE) -> Tensor:
        """``[side, side, D]``: what is in each cell of an "RGB" picture that is squashed to a square.

        Each cell is seen with its eight neighbours, as the windows in training were. Other sides than 7 show things
        larger or smaller than those were.
        """
        pixels = preprocess(picture, (side * _CELL, side * _CELL))
        return self.cells(self.net(pixels[None]))

    @torch.no_grad()
    def cells(self, features: Features) -> Tensor:
        """``image_map`` of a picture whose features are there already: ``[h, w, D]`` of those of one picture."""
        windows = F.avg_pool2d(features.spatial, 3, 1, 1, count_include_pad=False)
        cells = self.heads.image(features.pooled, windows.flatten(2).transpose(1, 2))[1]
        return cells.view(*features.spatial.shape[2:], -1)

    @torch.no_grad()
    def states(self, captions: Sequence[str]) -> list[Tensor]:
        """``[T, W]`` for each caption: the hidden states that the heads see, one for each token and the end."""
        rows = [caption_ids(self.tokens, caption) for caption in captions]
        found: dict[int, Tensor] = {}
        for part in by_length(rows, _BATCH):
            states, mask = self._states([rows[i] for i in part])
            found |= {i: row[kept] for i, row, kept in zip(part, states, mask, strict=True)}
        return [found[i] for i in range(len(rows))]

    def _states(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """States ``[B, T, W]`` and the mask ``[B, T]`` of tokens; the start, which is the same in all, is left out."""
        ids, mask = padded(rows)
        cache = Cache(self.model.config, len(ids), ids.shape[1])
        x = self.model.forward(self.model.embed(ids), cache)
        states = rms_norm(x.flatten(0, 1), self.model.final_gain).float()
        return states.view(x.shape)[:, 1:], mask[:, 1:]


def vectors_of(net: Callable[[Tensor], Features], heads: JointHeads, pixels: Tensor) -> Tensor:
    """``JointSpace.pixels`` for whoever needs no captions."""
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    features = net(pixels)
    return heads.image(features.pooled, features.tokens(WINDOWS))[0]


def load_heads() -> JointHeads:
    """The shipped heads, without the networks under them. ModelMissing or ModelDamaged."""
    manifest = shipped_manifest(f"joint-{JOINT}")
    return (
        read_heads(shipped_weights(manifest), JointConfig(**manifest["config"])).eval().requires_grad_(False)
    )


def first_layers(model: ExactLM, count: int) -> ExactLM:
    """A model that shares the first ``count`` layers of ``model`` and ends there."""
    shorter = copy.copy(model)
    shorter.layers = model.layers[:count]
    shorter.config = replace(model.config, layers=count)
    return shorter


def caption_ids(tokens: LMTokenizer, caption: str) -> list[int]:
    """Token ids with a start and an end, at most MAX_WORDS between them."""
    return [END_OF_TEXT, *tokens.split(caption)[:MAX_WORDS], END_OF_LINE]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids ``[B, T]``, and a mask of what is real."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[END_OF_LINE] * (longest - len(row))] for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask


def by_length(rows: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Places of rows in batches of similar length, shortest first."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def read_heads(path: Path, config: JointConfig) -> JointHeads:
    """Heads as ``training.joint.export`` writes them; ModelDamaged if they are others."""
    heads = JointHeads(config)
    try:
        heads.load_state_dict(unpack_floats(load_file(path)))
    except RuntimeError as error:
        raise ModelDamaged(f"{path.name} does not hold the heads that its manifest describes") from error
    return heads


@lru_cache(maxsize=1)
def load_joint() -> JointSpace:
    """The embedded space, one per process. ModelMissing or ModelDamaged name the command that helps."""
    return joint_space(load_heads(), f"joint-{JOINT}")


def joint_space(heads: JointHeads, name: str) -> JointSpace:
    """Any heads over the networks in the cache. Raises as ``load_joint``."""
    return JointSpace(load_features(), load_exact_lm(), load_tokenizer(), heads, name)
